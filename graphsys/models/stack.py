"""What the built-in networks share: a stack of convolutions with dropout before and an activation behind each."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from graphsys.models.base import LayerHop, LayerwiseModel
from graphsys.models.dropout import dropout


class ConvStack(LayerwiseModel):
    """Runs ``dropout -> convolution -> activation`` per layer; the last layer has no activation.

    The first dropout acts on the features themselves, as in the usual recipe for citation graphs.
    """

    def __init__(self, convs: Sequence[nn.Module], *, dropout: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.num_layers = len(convs)
        self.dropout = dropout

    @abstractmethod
    def convolve(self, conv: nn.Module, x: Tensor, hop: LayerHop) -> Tensor:
        """Return the convolution of ``x`` [num_src, D_in] over ``hop``: [num_dst, D_out]."""

    def activate(self, x: Tensor) -> Tensor:
        """Return the activation between layers."""
        return functional.relu(x)

    def forward_layer(self, index: int, x: Tensor, hop: LayerHop) -> Tensor:
        """Return the output of layer ``index``; see :class:`LayerwiseModel`."""
        x = dropout(x, p=self.dropout, training=self.training)
        # Under autocast a convolution answers in 16 bits, and the next layer would count neighbours in them: bfloat16
        # counts only to 256.
        x = self.convolve(self.convs[index], x, hop).float()
        return x if index == self.num_layers - 1 else self.activate(x)


def widths(in_channels: int, hidden_channels: int, out_channels: int, num_layers: int) -> list[tuple[int, int]]:
    """Return the (input, output) width of each of ``num_layers`` layers."""
    inner = [hidden_channels] * (num_layers - 1)
    return list(zip([in_channels, *inner], [*inner, out_channels], strict=True))
