"""What the deep networks for whole graphs share: encoder, decoder, dropout, and the two ways to average neighbours."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsys.models.dropout import dropout
from graphsys.models.gcn import degree_scale
from graphsys.models.layered import LayeredModel, MessageLayer, NodeRows
from graphsys.models.row_norm import RowNorm


class Dropout(nn.Module):
    """Drops out a share ``p`` of the entries while training; see :func:`graphsys.models.dropout.dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` [n, D] with entries dropped out."""
        return dropout(x, p=self.p, training=self.training)


class DeepModel(LayeredModel):
    """An encoder ``dropout -> linear -> relu``, layers of one width, and a decoder ``dropout -> linear``.

    With ``final_norm`` the decoder starts with ``norm -> relu``, as networks need whose layers add to their input.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        layers: Sequence[MessageLayer],
        *,
        dropout: float,
        final_norm: bool,
    ) -> None:
        super().__init__()
        width = layers[0].out_channels
        self.hidden_channels = width
        self.encoder = nn.Sequential(Dropout(dropout), nn.Linear(in_channels, width), nn.ReLU())
        self.layers = nn.ModuleList(layers)
        first = [RowNorm(width), nn.ReLU()] if final_norm else []
        self.decoder = nn.Sequential(*first, Dropout(dropout), nn.Linear(width, out_channels))

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the first layer's input; see :class:`LayeredModel`."""
        # Under autocast the encoder answers in 16 bits, and the first layer would sum neighbours in them.
        encoded: Tensor = self.encoder(x).float()
        return encoded, None

    def decode(self, x: Tensor) -> Tensor:
        """Return the outputs; see :class:`LayeredModel`."""
        outputs: Tensor = self.decoder(x).float()
        return outputs


class NormedLayer(MessageLayer):
    """A layer ``x + relu(transform(dropout(norm(x))))``, made of a node's own row and of what its neighbours send."""

    def __init__(self, channels: int, *, dropout: float) -> None:
        super().__init__()
        self.message_channels = self.out_channels = channels
        self.norm = RowNorm(channels)
        self.drop = Dropout(dropout)

    def prepare(self, rows: NodeRows) -> Tensor:
        """Return the rows normalised, with entries dropped out; see :class:`MessageLayer`."""
        prepared: Tensor = self.drop(self.norm(rows.x))
        return prepared

    def add(self, change: Tensor, rows: NodeRows) -> Tensor:
        """Return the layer's output [n, D] of the transform's [n, D]."""
        return rows.x + functional.relu(change)


def scaled_message(prepared: Tensor, rows: NodeRows) -> Tensor:
    """Return what a node of a graph convolution sends: its row [n, D] by ``1 / sqrt(d + 1)``."""
    return prepared * degree_scale(rows.in_degree)[:, None]


def propagated(total: Tensor, prepared: Tensor, rows: NodeRows) -> Tensor:
    """Return the graph convolution's average [n, D] of a node and its neighbours, by the sum of scaled messages.

    Source:
        ``P = (D + I)^(-1/2) (A + I) (D + I)^(-1/2)`` of Kipf, Welling 2017 (arXiv:1609.02907).
    """
    scale = degree_scale(rows.in_degree)[:, None]
    return torch.addcmul(prepared * scale.square(), total, scale)


def mean_of(total: Tensor, rows: NodeRows) -> Tensor:
    """Return the mean [n, D] of the neighbours by their sum; zero for a node without any."""
    return total / rows.in_degree.clamp(min=1)[:, None]
