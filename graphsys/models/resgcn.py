"""ResGCN+: layers that normalise and activate before they convolve, and add to their input."""

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from graphsys.models.deep import DeepModel, Dropout, mean_of
from graphsys.models.layered import MessageLayer, NodeRows
from graphsys.models.row_norm import RowNorm


class ResGCN(DeepModel):
    """Every layer is ``x + lin(p + aggregate of the neighbours' p)``, of ``p = dropout(relu(norm(x)))``.

    Source:
        Li, Xiong, Thabet, Ghanem 2020 (arXiv:2006.07739): the order "res+" and their convolution with an update of
        one linear map. Their batch norm is a layer norm here, since rows must not depend on which others they come
        with, and their softmax aggregation a plain mean or sum.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        dropout: float = 0.0,
        aggr: Literal["mean", "sum"] = "mean",
    ) -> None:
        layers = [ResGCNLayer(hidden_channels, aggr=aggr, dropout=dropout) for _ in range(num_layers)]
        super().__init__(in_channels, out_channels, layers, dropout=dropout, final_norm=True)


class ResGCNLayer(MessageLayer):
    """One layer of :class:`ResGCN`."""

    def __init__(self, channels: int, *, aggr: Literal["mean", "sum"], dropout: float) -> None:
        super().__init__()
        self.message_channels = self.out_channels = channels
        self.aggr = aggr
        self.norm = RowNorm(channels)
        self.drop = Dropout(dropout)
        self.lin = nn.Linear(channels, channels)

    def prepare(self, rows: NodeRows) -> Tensor:
        """Return the rows normalised, activated, with entries dropped out; see :class:`MessageLayer`."""
        prepared: Tensor = self.drop(functional.relu(self.norm(rows.x)))
        return prepared

    def messages(self, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the message of each node; see :class:`MessageLayer`."""
        del rows
        return prepared

    def update(self, total: Tensor, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the output of each node; see :class:`MessageLayer`."""
        neighbours = mean_of(total, rows) if self.aggr == "mean" else total
        change: Tensor = self.lin(prepared + neighbours)
        return rows.x + change
