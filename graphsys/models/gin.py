"""The graph isomorphism network."""

from torch import Tensor, nn
from torch_geometric.nn import GINConv

from graphsys.models.base import LayerHop
from graphsys.models.stack import ConvStack, widths


class GIN(ConvStack):
    """Every layer runs a perceptron over ``(1 + eps) * x + sum of neighbours``, eps learned.

    Source:
        Xu, Hu, Leskovec, Jegelka 2019 (arXiv:1810.00826). Their batch norm is a layer norm here: sums grow with the
        degree and need scaling, but a row's output must not depend on which other rows share its batch.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int, *, dropout: float = 0.0
    ) -> None:
        pairs = widths(in_channels, hidden_channels, out_channels, num_layers)
        convs = [GINConv(_perceptron(before, hidden_channels, after), train_eps=True) for before, after in pairs]
        super().__init__(convs, dropout=dropout)

    def convolve(self, conv: nn.Module, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, D_out]; see :class:`ConvStack`."""
        out: Tensor = conv((x, x[: hop.num_dst]), hop.edge_index)
        return out


def _perceptron(in_channels: int, hidden_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, hidden_channels),
        nn.LayerNorm(hidden_channels),
        nn.ReLU(),
        nn.Linear(hidden_channels, out_channels),
    )
