"""The graph isomorphism network."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsys.models.aggregate import sum_neighbors
from graphsys.models.base import LayerHop
from graphsys.models.row_norm import RowNorm
from graphsys.models.stack import StreamedStack, SumConv, widths


class GIN(StreamedStack):
    """Every layer runs a perceptron over ``(1 + eps) * x + sum of neighbours``, eps learned.

    Source:
        Xu, Hu, Leskovec, Jegelka 2019 (arXiv:1810.00826). Their batch norm is a layer norm here: sums grow with the
        degree and need scaling, but a row's output must not depend on which other rows share its batch.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, *, dropout: float = 0.0
    ) -> None:
        pairs = widths(in_channels, hidden_channels, out_channels, num_layers)
        super().__init__([GINConv(before, hidden_channels, after) for before, after in pairs], dropout=dropout)


class GINConv(SumConv):
    """``nn((1 + eps) * the node itself + sum of the neighbours)``; parameters are named as in PyG."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.nn = nn.Sequential(
            nn.Linear(in_channels, hidden_channels),
            RowNorm(hidden_channels),
            nn.ReLU(),
            nn.Linear(hidden_channels, out_channels),
        )
        self.eps = nn.Parameter(torch.zeros(1))
        self._is_narrowing = hidden_channels < in_channels

    @property
    def _first(self) -> nn.Linear:
        return cast(nn.Linear, self.nn[0])

    def forward(self, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, D_out]; see :class:`Conv`."""
        return self._finish(*sum_neighbors(self.messages(x, None), hop))

    @property
    def message_channels(self) -> int:
        """Columns of a message; see :class:`SumConv`."""
        return self._first.out_features if self._is_narrowing else self._first.in_features

    def messages(self, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the sources' messages; see :class:`SumConv`."""
        del in_degree
        return functional.linear(x, self._first.weight) if self._is_narrowing else x

    def update(self, total: Tensor, count: Tensor, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the destinations' outputs; see :class:`SumConv`."""
        del count
        return self._finish(total, self.messages(x, in_degree))

    def _finish(self, total: Tensor, own: Tensor) -> Tensor:
        # By columns first: torch splits a sum over all entries among its threads, and one over rows by columns.
        x = torch.addcmul(total, own.to(total.dtype), (1 + self.eps).expand(own.shape[1]))
        x = x + self._first.bias if self._is_narrowing else self._first(x)
        out: Tensor = self.nn[1:](x)
        return out
