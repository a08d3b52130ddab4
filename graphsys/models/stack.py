"""What the built-in networks share: a stack of convolutions with dropout before and an activation behind each."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from graphsys.models.base import LayerHop, LayerwiseModel, StreamedModel
from graphsys.models.dropout import dropout


class Conv(nn.Module, ABC):
    """One message-passing layer, without dropout and activation."""

    @abstractmethod
    def forward(self, x: Tensor, hop: LayerHop) -> Tensor:
        """Return the layer of ``x`` [num_src, D_in] over ``hop``: [num_dst, D_out]."""


class SumConv(Conv):
    """A layer that sums one message per in-edge; see :class:`StreamedModel`."""

    @property
    @abstractmethod
    def message_channels(self) -> int:
        """Columns M of a message."""

    @abstractmethod
    def messages(self, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the messages [S, M] of sources [S, D_in]."""

    @abstractmethod
    def update(self, total: Tensor, count: Tensor, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the outputs [n, D_out] of destinations by their sums [n, M], edges [n] and own rows [n, D_in]."""


class ConvStack(LayerwiseModel):
    """Runs ``dropout -> convolution -> activation`` per layer; the last layer has no activation.

    The first dropout acts on the features themselves, as in the usual recipe for citation graphs.
    """

    def __init__(self, convs: Sequence[Conv], *, dropout: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.num_layers = len(convs)
        self.dropout = dropout

    def activate(self, x: Tensor) -> Tensor:
        """Return the activation between layers, in the memory of ``x``."""
        return functional.relu(x, inplace=True)

    def forward_layer(self, index: int, x: Tensor, hop: LayerHop) -> Tensor:
        """Return the output of layer ``index``; see :class:`LayerwiseModel`."""
        x = dropout(x, p=self.dropout, training=self.training)
        return self._finish(index, self.convs[index](x, hop))

    def _finish(self, index: int, x: Tensor) -> Tensor:
        # Under autocast a convolution answers in 16 bits, and the next layer would sum neighbours in them: bfloat16
        # counts only to 256.
        x = x.float()
        return x if index == self.num_layers - 1 else self.activate(x)


class StreamedStack(ConvStack, StreamedModel):
    """A stack of layers that sum messages."""

    def __init__(self, convs: Sequence[SumConv], *, dropout: float) -> None:
        super().__init__(convs, dropout=dropout)

    def conv(self, index: int) -> SumConv:
        """Return the convolution of layer ``index``."""
        return cast(SumConv, self.convs[index])

    def message_channels(self, index: int) -> int:
        """Return the columns of a message; see :class:`StreamedModel`."""
        return self.conv(index).message_channels

    def messages(self, index: int, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the sources' messages; see :class:`StreamedModel`."""
        return self.conv(index).messages(x, in_degree).float()

    def update(self, index: int, total: Tensor, count: Tensor, x: Tensor, in_degree: Tensor | None) -> Tensor:
        """Return the destinations' outputs; see :class:`StreamedModel`."""
        return self._finish(index, self.conv(index).update(total, count, x, in_degree))


def widths(in_channels: int, hidden_channels: int, out_channels: int, num_layers: int) -> list[tuple[int, int]]:
    """Return the (input, output) width of each of ``num_layers`` layers."""
    inner = [hidden_channels] * (num_layers - 1)
    return list(zip([in_channels, *inner], [*inner, out_channels], strict=True))
