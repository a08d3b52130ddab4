"""Lets a user's ``torch.nn.Module`` take the place of a built-in network."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from graphsys.core.errors import ConfigError
from graphsys.models.base import BatchModel, GraphBatch, LayerHop, LayerwiseModel, StreamedModel
from graphsys.models.user_code import user_code


class UserModel(BatchModel):
    """A user's module, made to answer or to fail with one sentence; its weights keep the names that the user wrote."""

    def __init__(self, module: nn.Module, *, num_layers: int, out_channels: int) -> None:
        super().__init__()
        self.module = module
        self.num_layers = num_layers
        self.out_channels = out_channels

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the module's own."""
        return self.module.state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load what :meth:`state_dict` gave."""
        return self.module.load_state_dict(state_dict, strict=strict, assign=assign)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the module's own."""
        return self.module.named_parameters(prefix, recurse, remove_duplicate)


class PygAdapter(UserModel):
    """Calls ``module(x, edge_index)``, which returns one row per node; those of the seeds, the first B, are kept."""

    def forward(self, batch: GraphBatch) -> Tensor:
        """Return [B, out_channels].

        Raises:
            ConfigError: The module failed, or returned something else.
        """
        with _calling(self.module, "forward(x, edge_index)"):
            out: object = self.module(batch.x, batch.edge_index)
        good = isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] == self.out_channels
        if not isinstance(out, Tensor) or not good or out.shape[0] < batch.batch_size:
            wanted = f"at least {batch.batch_size} rows (the seeds first) of {self.out_channels} outputs"
            raise ConfigError(_wrong_output(self.module, "forward(x, edge_index)", out, wanted))
        return _checked(self.module, "forward(x, edge_index)", out[: batch.batch_size])


class DglAdapter(UserModel):
    """Calls ``module(blocks, x)`` with L DGL blocks, outermost first; it returns the rows of the B seeds."""

    def forward(self, batch: GraphBatch) -> Tensor:
        """Return [B, out_channels].

        Raises:
            ConfigError: The module failed, or returned something else.
        """
        blocks, x = batch.to_dgl()
        with _calling(self.module, "forward(blocks, x)"):
            out: object = self.module(blocks, x)
        return _rows_of_seeds(self, batch, "forward(blocks, x)", out)


class BatchAdapter(UserModel):
    """Calls a user's own :class:`BatchModel`."""

    def __init__(self, module: BatchModel, *, out_channels: int) -> None:
        super().__init__(module, num_layers=module.num_layers, out_channels=out_channels)
        self.needs_degree = module.needs_degree

    def forward(self, batch: GraphBatch) -> Tensor:
        """Return [B, out_channels].

        Raises:
            ConfigError: The module failed, or returned something else.
        """
        with _calling(self.module, "forward(batch)"):
            out: object = self.module(batch)
        return _rows_of_seeds(self, batch, "forward(batch)", out)


class LayerwiseAdapter(BatchAdapter, LayerwiseModel):
    """Calls a user's own :class:`LayerwiseModel`."""

    def __init__(self, module: LayerwiseModel, *, out_channels: int) -> None:
        super().__init__(module, out_channels=out_channels)
        self._forward_layer = module.forward_layer

    def forward_layer(self, index: int, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, D_out].

        Raises:
            ConfigError: The module failed.
        """
        with _calling(self.module, "forward_layer(index, x, hop)"):
            return self._forward_layer(index, x, hop)


class StreamedAdapter(LayerwiseAdapter, StreamedModel):
    """Calls a user's own :class:`StreamedModel`."""

    def __init__(self, module: StreamedModel, *, out_channels: int) -> None:
        super().__init__(module, out_channels=out_channels)
        self._message_channels = module.message_channels
        self._messages = module.messages
        self._update = module.update

    def message_channels(self, index: int) -> int:
        """Return M; raises as :meth:`forward_layer`."""
        with _calling(self.module, "message_channels(index)"):
            return self._message_channels(index)

    def messages(self, index: int, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return [S, M]; raises as :meth:`forward_layer`."""
        with _calling(self.module, "messages(index, x, in_degree)"):
            return self._messages(index, x, in_degree)

    def update(self, index: int, total: Tensor, count: Tensor, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return [n, D_out]; raises as :meth:`forward_layer`."""
        with _calling(self.module, "update(index, total, count, x, in_degree)"):
            return self._update(index, total, count, x, in_degree)


def adapt_batch_model(module: BatchModel, *, out_channels: int) -> UserModel:
    """Return the adapter of a user's own :class:`BatchModel`, layerwise or streamed where the module is."""
    if isinstance(module, StreamedModel):
        return StreamedAdapter(module, out_channels=out_channels)
    if isinstance(module, LayerwiseModel):
        return LayerwiseAdapter(module, out_channels=out_channels)
    return BatchAdapter(module, out_channels=out_channels)


def backward_of(model: nn.Module) -> AbstractContextManager[None]:
    """Run the block, which goes backward through ``model``.

    Raises:
        ConfigError: The model is the user's, and the block failed.
    """
    return _calling(model.module, "forward: its backward pass") if isinstance(model, UserModel) else nullcontext()


def _calling(module: nn.Module, call: str) -> AbstractContextManager[None]:
    return user_code(_call(module, call))


def _rows_of_seeds(model: UserModel, batch: GraphBatch, call: str, out: object) -> Tensor:
    """Return ``out``, once it is known to be the outputs of the seeds."""
    if not isinstance(out, Tensor) or tuple(out.shape) != (batch.batch_size, model.out_channels):
        wanted = f"the {batch.batch_size} rows of the seeds with {model.out_channels} outputs"
        raise ConfigError(_wrong_output(model.module, call, out, wanted))
    return _checked(model.module, call, out)


def _wrong_output(module: nn.Module, call: str, out: object, wanted: str) -> str:
    found = f"a tensor of shape {list(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
    return f"{_call(module, call)} returned {found}; expected {wanted}"


def _call(module: nn.Module, call: str) -> str:
    kind = type(module)
    return f"{kind.__module__}:{kind.__qualname__}.{call}"


def _checked(module: nn.Module, call: str, out: Tensor) -> Tensor:
    """Return ``out``, once it is known to be of numbers that training can change."""
    if not out.is_floating_point():
        raise ConfigError(f"{_call(module, call)} returned numbers of type {out.dtype}; expected a floating-point type")
    if torch.is_grad_enabled() and not out.requires_grad:
        raise ConfigError(
            f"{_call(module, call)} returned outputs that do not depend on its parameters, so it cannot be trained; "
            f"leave out detach() and no_grad()"
        )
    return out
