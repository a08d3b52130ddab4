"""Lets a user's ``torch.nn.Module`` take the place of a built-in network."""

import torch
from torch import Tensor, nn

from graphsys.core.errors import ConfigError
from graphsys.models.base import BatchModel, GraphBatch, LayerHop, LayerwiseModel
from graphsys.models.user_code import user_code


class PygAdapter(BatchModel):
    """Calls ``module(x, edge_index)``, which returns one row per node; those of the seeds, the first B, are kept."""

    def __init__(self, module: nn.Module, *, num_layers: int, out_channels: int) -> None:
        super().__init__()
        self.module = module
        self.num_layers = num_layers
        self.out_channels = out_channels

    def forward(self, batch: GraphBatch) -> Tensor:
        """Return [B, out_channels].

        Raises:
            ConfigError: The module returned something else.
        """
        with user_code(_call(self.module, "forward(x, edge_index)")):
            out: object = self.module(batch.x, batch.edge_index)
        good = isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] == self.out_channels
        if not isinstance(out, Tensor) or not good or out.shape[0] < batch.batch_size:
            wanted = f"at least {batch.batch_size} rows (the seeds first) of {self.out_channels} outputs"
            raise ConfigError(_wrong_output(self.module, "forward(x, edge_index)", out, wanted))
        return _checked(self.module, "forward(x, edge_index)", out[: batch.batch_size])


class DglAdapter(BatchModel):
    """Calls ``module(blocks, x)`` with L DGL blocks, outermost first; it returns the rows of the B seeds."""

    def __init__(self, module: nn.Module, *, num_layers: int, out_channels: int) -> None:
        super().__init__()
        self.module = module
        self.num_layers = num_layers
        self.out_channels = out_channels

    def forward(self, batch: GraphBatch) -> Tensor:
        """Return [B, out_channels].

        Raises:
            ConfigError: The module returned something else.
        """
        blocks, x = batch.to_dgl()
        with user_code(_call(self.module, "forward(blocks, x)")):
            out: object = self.module(blocks, x)
        if not isinstance(out, Tensor) or tuple(out.shape) != (batch.batch_size, self.out_channels):
            wanted = f"the {batch.batch_size} rows of the seeds with {self.out_channels} outputs"
            raise ConfigError(_wrong_output(self.module, "forward(blocks, x)", out, wanted))
        return _checked(self.module, "forward(blocks, x)", out)


def guard_methods(module: BatchModel, *, out_channels: int) -> BatchModel:
    """Return a user's own :class:`BatchModel`, its methods made to answer or to fail with one sentence."""
    forward = module.forward

    def checked_forward(batch: GraphBatch) -> Tensor:
        with user_code(_call(module, "forward(batch)")):
            out: object = forward(batch)
        if not isinstance(out, Tensor) or tuple(out.shape) != (batch.batch_size, out_channels):
            wanted = f"the {batch.batch_size} rows of the seeds with {out_channels} outputs"
            raise ConfigError(_wrong_output(module, "forward(batch)", out, wanted))
        return _checked(module, "forward(batch)", out)

    # Set on the object, so that its class, layers and names of parameters stay as the user wrote them.
    setattr(module, "forward", checked_forward)  # noqa: B010 - a method may not be assigned to
    if isinstance(module, LayerwiseModel):
        forward_layer = module.forward_layer

        def guarded_layer(index: int, x: Tensor, hop: LayerHop) -> Tensor:
            with user_code(_call(module, "forward_layer(index, x, hop)")):
                return forward_layer(index, x, hop)

        setattr(module, "forward_layer", guarded_layer)  # noqa: B010
    return module


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
