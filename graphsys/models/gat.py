"""The graph attention network."""

from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv

from graphsys.core.errors import ConfigError
from graphsys.models.base import LayerHop
from graphsys.models.stack import ConvStack, widths


class GAT(ConvStack):
    """Every layer weighs the neighbours, and the node itself, by learned attention.

    Hidden layers concatenate their heads to ``hidden_channels``; the last layer has one head.

    Raises:
        ConfigError: ``hidden_channels`` is no multiple of ``heads``.

    Source:
        Velickovic et al. 2018 (arXiv:1710.10903).
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        dropout: float = 0.0,
        heads: int = 4,
    ) -> None:
        if hidden_channels % heads:
            raise ConfigError(
                f"model.hidden is {hidden_channels}, which {heads} heads do not divide; "
                f"set model.hidden to {-(-hidden_channels // heads) * heads}, or change model.heads"
            )
        pairs = widths(in_channels, hidden_channels, out_channels, num_layers)
        hidden = [GATConv(before, after // heads, heads=heads) for before, after in pairs[:-1]]
        super().__init__([*hidden, GATConv(*pairs[-1], heads=1)], dropout=dropout)

    def convolve(self, conv: nn.Module, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, D_out]; see :class:`ConvStack`."""
        # The layer adds an edge from each destination to itself: both ends have the same index, as destinations are
        # a prefix of the sources.
        out: Tensor = conv((x, x[: hop.num_dst]), hop.edge_index, size=(x.shape[0], hop.num_dst))
        return out

    def activate(self, x: Tensor) -> Tensor:
        """Return the activation between layers."""
        return functional.elu(x)
