"""GraphSAGE with mean aggregation."""

from torch import Tensor, nn
from torch.nn import functional

from graphsys.models.aggregate import add_linear, edge_counts, spread_to_edges, sum_neighbors
from graphsys.models.base import LayerHop
from graphsys.models.stack import StreamedStack, SumConv, widths


class GraphSAGE(StreamedStack):
    """Every layer adds a transform of the node itself to one of its neighbours' mean.

    Source:
        Hamilton, Ying, Leskovec 2017 (arXiv:1706.02216).
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, *, dropout: float = 0.0
    ) -> None:
        pairs = widths(in_channels, hidden_channels, out_channels, num_layers)
        super().__init__([SAGEConv(before, after) for before, after in pairs], dropout=dropout)


class SAGEConv(SumConv):
    """``lin_l(mean of the neighbours) + lin_r(the node itself)``; parameters are named as in PyG."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin_l = nn.Linear(in_channels, out_channels)
        self.lin_r = nn.Linear(in_channels, out_channels, bias=False)
        self._is_narrowing = out_channels < in_channels

    def forward(self, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, D_out]; see :class:`Conv`."""
        share = spread_to_edges(_mean_scale(edge_counts(hop)), hop)
        if self._is_narrowing:
            mean, _ = sum_neighbors(self.messages(x, None), hop, share)
            return self._combine(mean, x[: hop.num_dst])
        return self._combine(*sum_neighbors(x, hop, share))

    @property
    def message_channels(self) -> int:
        """Columns of a message; see :class:`SumConv`."""
        return self.lin_l.out_features if self._is_narrowing else self.lin_l.in_features

    def messages(self, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the sources' messages; see :class:`SumConv`."""
        del in_degree
        return functional.linear(x, self.lin_l.weight) if self._is_narrowing else x

    def update(self, total: Tensor, count: Tensor, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the destinations' outputs; see :class:`SumConv`."""
        del in_degree
        return self._combine(total * _mean_scale(count)[:, None], x)

    def _combine(self, mean: Tensor, x: Tensor) -> Tensor:
        out: Tensor = mean + self.lin_l.bias if self._is_narrowing else self.lin_l(mean)
        return add_linear(out, x, self.lin_r.weight)


def _mean_scale(count: Tensor) -> Tensor:
    # A node without neighbours has the mean zero.
    return count.clamp(min=1).float().reciprocal()
