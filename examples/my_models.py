"""Two networks of one's own, as a run file names them: ``model: {class: my_models:PygNet}``.

Run ``graphsys train`` from this folder, or put the module on PYTHONPATH. ``__init__`` is given those of in_channels,
hidden_channels, out_channels, num_layers and dropout that it asks for; anything else comes from ``model.kwargs``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv


class PygNet(nn.Module):
    """PyG style: features of all sampled nodes and their edges in, one row per node out."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int) -> None:
        super().__init__()
        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.layers = nn.ModuleList(SAGEConv(widths[i], widths[i + 1]) for i in range(num_layers))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Return [V, out_channels]; graphsys keeps the rows of the seeds, which come first.

        Args:
            x: [V, in_channels].
            edge_index: [2, E] int64, sources and destinations.
        """
        for index, layer in enumerate(self.layers):
            x = layer(x, edge_index)
            if index < len(self.layers) - 1:
                x = torch.relu(x)
        return x


class DglNet(nn.Module):
    """DGL style: message-flow blocks, outermost first, and the features of the outermost sources in."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int, num_layers: int) -> None:
        super().__init__()
        import os

        # DGL reads its backend once, when it is first imported.
        os.environ.setdefault("DGLBACKEND", "pytorch")
        from dgl.nn.pytorch import SAGEConv as DglSAGEConv

        widths = [in_channels, *[hidden_channels] * (num_layers - 1), out_channels]
        self.layers = nn.ModuleList(DglSAGEConv(widths[i], widths[i + 1], "mean") for i in range(num_layers))

    def forward(self, blocks: list[Any], x: Tensor) -> Tensor:
        """Return the rows [B, out_channels] of the seeds.

        Args:
            blocks: DGL blocks, one per layer, outermost first.
            x: [V, in_channels] features of the first block's sources.
        """
        for index, (layer, block) in enumerate(zip(self.layers, blocks, strict=True)):
            x = layer(block, x)
            if index < len(self.layers) - 1:
                x = torch.relu(x)
        return x
