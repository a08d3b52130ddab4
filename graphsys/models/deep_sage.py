"""A deep GraphSAGE: layers that each add to their input."""

from torch import Tensor, nn

from graphsys.models.deep import DeepModel, NormedLayer, mean_of
from graphsys.models.layered import NodeRows


class DeepSAGE(DeepModel):
    """Every layer is ``x + relu(lin_l(mean of the neighbours) + lin_r(the node itself))``, of ``dropout(norm(x))``.

    Source:
        Hamilton, Ying, Leskovec 2017 (arXiv:1706.02216), with the residuals and layer norms of Platonov et al. 2023
        (arXiv:2302.11640).
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, *, dropout: float = 0.0
    ) -> None:
        layers = [DeepSAGELayer(hidden_channels, dropout=dropout) for _ in range(num_layers)]
        super().__init__(in_channels, out_channels, layers, dropout=dropout, final_norm=True)


class DeepSAGELayer(NormedLayer):
    """One layer of :class:`DeepSAGE`."""

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__(channels, dropout=dropout)
        self.lin_l = nn.Linear(channels, channels)
        self.lin_r = nn.Linear(channels, channels, bias=False)

    def messages(self, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the message of each node; see :class:`MessageLayer`."""
        del rows
        return prepared

    def update(self, total: Tensor, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the output of each node; see :class:`MessageLayer`."""
        return self.add(self.lin_l(mean_of(total, rows)) + self.lin_r(prepared), rows)
