"""The graph attention network."""

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsys.core.errors import ConfigError
from graphsys.models.attention import attend
from graphsys.models.base import AttentionModel, LayerHop
from graphsys.models.elu import elu
from graphsys.models.stack import Conv, ConvStack, widths

_SLOPE = 0.2  # of the scores' leaky ReLU, as in the paper


class GAT(ConvStack, AttentionModel):
    """Every layer weighs the neighbours, and the node itself, by learned attention.

    Hidden layers concatenate their heads to ``hidden_channels``; the last layer has one head.

    Raises:
        ConfigError: ``hidden_channels`` is no multiple of ``heads``.

    Source:
        Velickovic et al. 2018 (arXiv:1710.10903).
    """

    attention_slope = _SLOPE

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        dropout: float = 0.0,
        heads: int = 4,
    ) -> None:
        if hidden_channels % heads:
            raise ConfigError(
                f"model.hidden is {hidden_channels}, which {heads} heads do not divide; "
                f"set model.hidden to {-(-hidden_channels // heads) * heads}, or change model.heads"
            )
        pairs = widths(in_channels, hidden_channels, out_channels, num_layers)
        hidden = [GATConv(before, after // heads, heads=heads) for before, after in pairs[:-1]]
        super().__init__([*hidden, GATConv(*pairs[-1], heads=1)], dropout=dropout)

    def activate(self, x: Tensor) -> Tensor:
        """Return the activation between layers, in the memory of ``x``."""
        return elu(x)

    def conv(self, index: int) -> "GATConv":
        """Return the convolution of layer ``index``."""
        return cast(GATConv, self.convs[index])

    def attention_heads(self, index: int) -> int:
        """Return the heads of a layer; see :class:`AttentionModel`."""
        return int(self.conv(index).att_src.shape[1])

    def value_channels(self, index: int) -> int:
        """Return the columns of a layer's values; see :class:`AttentionModel`."""
        return self.conv(index).lin.out_features

    def attend(self, index: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, keys and queries; see :class:`AttentionModel`."""
        return self.conv(index).attend(x)

    def attended(self, index: int, mean: Tensor) -> Tensor:
        """Return the destinations' outputs; see :class:`AttentionModel`."""
        return self._finish(index, mean + self.conv(index).bias)


class GATConv(Conv):
    """Attention of ``heads`` heads of ``out_channels`` columns each; parameters are named and drawn as in PyG."""

    def __init__(self, in_channels: int, out_channels: int, *, heads: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, heads * out_channels, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.bias = nn.Parameter(torch.zeros(heads * out_channels))
        nn.init.xavier_uniform_(self.lin.weight)
        bound = math.sqrt(6 / (heads + out_channels))
        nn.init.uniform_(self.att_src, -bound, bound)
        nn.init.uniform_(self.att_dst, -bound, bound)

    def forward(self, x: Tensor, hop: LayerHop) -> Tensor:
        """Return [num_dst, heads * out_channels]; see :class:`Conv`."""
        values, src_score, dst_score = self.attend(x)
        out = attend(values, src_score, dst_score[: hop.num_dst], hop, slope=_SLOPE)
        return out.flatten(1) + self.bias

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each row's values [*, heads, C], and its scores as source and as destination [*, heads]."""
        values = self.lin(x).float().unflatten(1, self.att_src.shape[1:])
        src_score, dst_score = self._scores(x).chunk(2, dim=1)
        return values, src_score, dst_score

    def _scores(self, x: Tensor) -> Tensor:
        """Return each row's part in its edges' scores as source and as destination: [*, 2 * heads].

        That is attention times ``lin(x)``, summed over a head's columns. Both in one product: products of matrices have
        the same bits on any number of threads, those with a vector, which the scores of one head would be, have not.
        """
        # In 32 bits under autocast too.
        with torch.autocast(x.device.type, enabled=False):
            weight = self.lin.weight.view(*self.att_src.shape[1:], -1)
            attention = torch.cat([self.att_src, self.att_dst])
            return functional.linear(x, (weight * attention[:, :, :, None]).sum(dim=2).flatten(0, 1))
