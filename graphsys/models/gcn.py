"""The graph convolutional network, normalised by the degrees of the whole graph."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsys.core.errors import ConfigError
from graphsys.models.aggregate import edge_counts, spread_to_edges, sum_neighbors
from graphsys.models.base import LayerHop
from graphsys.models.stack import StreamedStack, SumConv, widths


class GCN(StreamedStack):
    """Every layer sums the node and its neighbours, each scaled by the two ends' degrees.

    A sampled neighbourhood gives an unbiased estimate of the whole graph's layer, and all neighbours give it exactly.
    A self-loop is added to every node; a graph should therefore be imported without its own.

    Source:
        Kipf, Welling 2017 (arXiv:1609.02907).
    """

    needs_degree = True

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, *, dropout: float = 0.0
    ) -> None:
        pairs = widths(in_channels, hidden_channels, out_channels, num_layers)
        super().__init__([GCNConv(before, after) for before, after in pairs], dropout=dropout)


class GCNConv(SumConv):
    """``lin(weighted sum of the node and its neighbours) + bias``; parameters are named and drawn as in PyG.

    With d the in-degree in the whole graph and s the number of sampled in-edges, edge j -> i weighs
    ``1 / sqrt((d_j + 1) (d_i + 1)) * d_i / s_i`` and the loop at i weighs ``1 / (d_i + 1)``.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.xavier_uniform_(self.lin.weight)
        self._is_narrowing = out_channels < in_channels

    def forward(self, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, D_out]; see :class:`Conv`.

        Raises:
            ConfigError: The hop carries no degrees.
        """
        degree, count = _checked(hop.in_degree), edge_counts(hop)
        scale, own = degree_scale(degree), degree[: hop.num_dst]
        loop = degree_scale(own)
        weight = spread_to_edges(loop * _boost(own, count), hop) * scale[hop.indices]
        total, own_rows = sum_neighbors(self.lin(x) if self._is_narrowing else x, hop, weight)
        return self._finish(torch.addcmul(total, own_rows, loop.square()[:, None]))

    @property
    def message_channels(self) -> int:
        """Columns of a message; see :class:`SumConv`."""
        return self.lin.out_features if self._is_narrowing else self.lin.in_features

    def messages(self, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the sources' messages; see :class:`SumConv`."""
        values: Tensor = self.lin(x) if self._is_narrowing else x
        return values * degree_scale(_checked(in_degree))[:, None]

    def update(self, total: Tensor, count: Tensor, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the destinations' outputs; see :class:`SumConv`."""
        degree = _checked(in_degree)
        scale = degree_scale(degree)
        values: Tensor = self.lin(x) if self._is_narrowing else x
        own = values * scale.square()[:, None]
        return self._finish(torch.addcmul(own, total, (scale * _boost(degree, count))[:, None]))

    def _finish(self, total: Tensor) -> Tensor:
        if self._is_narrowing:
            return total + self.bias
        return functional.linear(total, self.lin.weight, self.bias)


def degree_scale(in_degree: Tensor) -> Tensor:
    """Return ``1 / sqrt(d + 1)`` [n] float32 of in-degrees [n]: what an edge weighs is the product of its ends'."""
    return torch.rsqrt(in_degree.float() + 1)


def _boost(degree: Tensor, count: Tensor) -> Tensor:
    # A node without sampled edges has no edge that reads its quotient.
    return degree.float() / count.clamp(min=1)


def _checked(in_degree: Tensor | None) -> Tensor:
    if in_degree is None:
        raise ConfigError("a gcn needs the in-degree of every node; sample its batches with with_degree=True")
    return in_degree
