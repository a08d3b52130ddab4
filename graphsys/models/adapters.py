"""Lets a user's ``torch.nn.Module`` take the place of a built-in network."""

from torch import Tensor, nn

from graphsys.core.errors import ConfigError
from graphsys.models.base import BatchModel, GraphBatch


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
        out: object = self.module(batch.x, batch.edge_index)
        good = isinstance(out, Tensor) and out.dim() == 2 and out.shape[1] == self.out_channels
        if not isinstance(out, Tensor) or not good or out.shape[0] < batch.batch_size:
            wanted = f"at least {batch.batch_size} rows (the seeds first) of {self.out_channels} outputs"
            raise ConfigError(_wrong_output(self.module, "forward(x, edge_index)", out, wanted))
        return out[: batch.batch_size]


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
        out: object = self.module(blocks, x)
        if not isinstance(out, Tensor) or tuple(out.shape) != (batch.batch_size, self.out_channels):
            wanted = f"the {batch.batch_size} rows of the seeds with {self.out_channels} outputs"
            raise ConfigError(_wrong_output(self.module, "forward(blocks, x)", out, wanted))
        return out


def _wrong_output(module: nn.Module, call: str, out: object, wanted: str) -> str:
    kind = type(module)
    found = f"a tensor of shape {list(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
    return f"{kind.__module__}:{kind.__qualname__}.{call} returned {found}; expected {wanted}"
