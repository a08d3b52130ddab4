"""A deep graph convolutional network: convolutions that each add to their input."""

from torch import Tensor, nn

from graphsys.models.deep import DeepModel, NormedLayer, propagated, scaled_message
from graphsys.models.layered import NodeRows


class DeepGCN(DeepModel):
    """Every layer is ``x + relu(linear(P dropout(norm(x))))``, P averaging a node and its neighbours by degree.

    Source:
        Kipf, Welling 2017 (arXiv:1609.02907), appendix B, with a layer norm before each convolution, since the
        sums grow from layer to layer.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, *, dropout: float = 0.0
    ) -> None:
        layers = [DeepGCNLayer(hidden_channels, dropout=dropout) for _ in range(num_layers)]
        super().__init__(in_channels, out_channels, layers, dropout=dropout, final_norm=True)


class DeepGCNLayer(NormedLayer):
    """One graph convolution of :class:`DeepGCN`."""

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__(channels, dropout=dropout)
        self.lin = nn.Linear(channels, channels)

    def messages(self, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the message of each node; see :class:`MessageLayer`."""
        return scaled_message(prepared, rows)

    def update(self, total: Tensor, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the output of each node; see :class:`MessageLayer`."""
        return self.add(self.lin(propagated(total, prepared, rows)), rows)
