"""GraphSAGE with mean aggregation."""

from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from graphsys.models.base import LayerHop
from graphsys.models.stack import ConvStack, widths


class GraphSAGE(ConvStack):
    """Every layer adds a transform of the node itself to one of its neighbours' mean.

    Source:
        Hamilton, Ying, Leskovec 2017 (arXiv:1706.02216).
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, *, dropout: float = 0.0
    ) -> None:
        pairs = widths(in_channels, hidden_channels, out_channels, num_layers)
        super().__init__([SAGEConv(before, after, aggr="mean") for before, after in pairs], dropout=dropout)

    def convolve(self, conv: nn.Module, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, D_out]; see :class:`ConvStack`."""
        out: Tensor = conv((x, x[: hop.num_dst]), hop.edge_index)
        return out
