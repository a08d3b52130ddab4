"""The graph convolutional network, normalised by the degrees of the whole graph."""

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv

from graphsys.core.errors import ConfigError
from graphsys.models.base import LayerHop
from graphsys.models.stack import ConvStack, widths


class GCN(ConvStack):
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
        super().__init__([GCNConv(before, after, normalize=False) for before, after in pairs], dropout=dropout)

    def convolve(self, conv: nn.Module, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, D_out]; see :class:`ConvStack`."""
        edge_index, weight = normalized_edges(hop)
        out: Tensor = conv(x, edge_index, weight)
        return out[: hop.num_dst]


def normalized_edges(hop: LayerHop) -> tuple[Tensor, Tensor]:
    """Return the hop's edges and one self-loop per destination, with their weights.

    With d the in-degree in the whole graph and s the number of sampled in-edges, edge j -> i weighs
    ``1 / sqrt((d_j + 1) (d_i + 1)) * d_i / s_i`` and the loop at i weighs ``1 / (d_i + 1)``.

    Returns:
        [2, E + num_dst] int64 and [E + num_dst] float32.

    Raises:
        ConfigError: The hop carries no degrees.
    """
    if hop.in_degree is None:
        raise ConfigError("a gcn needs the in-degree of every node; sample its batches with with_degree=True")
    row, col = hop.edge_index
    degree = hop.in_degree.to(torch.float32)
    scale = torch.rsqrt(degree + 1)
    sampled = torch.bincount(col, minlength=hop.num_dst)
    # A node without sampled edges has no edge that reads its quotient.
    boost = degree[: hop.num_dst] / sampled.clamp(min=1)
    loop = torch.arange(hop.num_dst, device=row.device)
    edge_index = torch.cat([hop.edge_index, loop.expand(2, -1)], dim=1)
    weight = torch.cat([scale[row] * scale[col] * boost[col], scale[: hop.num_dst].square()])
    return edge_index, weight
