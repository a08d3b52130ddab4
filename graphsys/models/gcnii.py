"""GCNII: a graph convolutional network that stays sharp at any depth."""

import math

from torch import Tensor, nn
from torch.nn import functional

from graphsys.models.deep import DeepModel, Dropout, propagated, scaled_message
from graphsys.models.layered import MessageLayer, NodeRows


class GCNII(DeepModel):
    """Every layer mixes in the encoder's output (the initial residual) and stays near the identity.

    Source:
        Chen, Wei, Huang, Ding, Li 2020 (arXiv:2007.02133).
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        dropout: float = 0.0,
        alpha: float = 0.1,
        theta: float = 0.5,
    ) -> None:
        layers = [
            GCNIILayer(hidden_channels, alpha=alpha, beta=math.log(theta / depth + 1), dropout=dropout)
            for depth in range(1, num_layers + 1)
        ]
        super().__init__(in_channels, out_channels, layers, dropout=dropout, final_norm=False)
        self.shared_channels = hidden_channels

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the first layer's input, also as what every layer gets; see :class:`LayeredModel`."""
        encoded, _ = super().encode(x)
        return encoded, encoded


class GCNIILayer(MessageLayer):
    """``relu((1 - beta) s + beta lin(s))`` of ``s = (1 - alpha) P dropout(x) + alpha h0``.

    P averages a node and its neighbours by degree, h0 are the encoder's rows, and beta is ``log(theta / depth + 1)``.
    """

    def __init__(self, channels: int, *, alpha: float, beta: float, dropout: float) -> None:
        super().__init__()
        self.message_channels = self.out_channels = channels
        self.alpha, self.beta = alpha, beta
        self.drop = Dropout(dropout)
        self.lin = nn.Linear(channels, channels, bias=False)

    def prepare(self, rows: NodeRows) -> Tensor:
        """Return the rows with entries dropped out; see :class:`MessageLayer`."""
        prepared: Tensor = self.drop(rows.x)
        return prepared

    def messages(self, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the message of each node; see :class:`MessageLayer`."""
        return scaled_message(prepared, rows)

    def update(self, total: Tensor, prepared: Tensor, rows: NodeRows) -> Tensor:
        """Return the output of each node; see :class:`MessageLayer`."""
        assert rows.shared is not None, "the encoder gives every layer its output"
        support = propagated(total, prepared, rows).lerp(rows.shared, self.alpha)
        return functional.relu(support.lerp(self.lin(support).float(), self.beta))
