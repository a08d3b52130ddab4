"""The networks of PyG and DGL that ``step.py`` compares with, as their own examples write them.

Each peer is a pair: ``prepare`` makes of a batch what the library's own loader would hand over, outside of the time
that is taken; ``step`` takes one optimizer step on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from graphsys.trainers.batch import MiniBatch

Widths = tuple[int, int, int]  # features, hidden, outputs
HEADS = 4  # of the hidden layers of a gat; the last layer has one


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One library's training step."""

    prepare: Callable[[MiniBatch], Any]
    step: Callable[[Any, Tensor], None]


def trained(module: nn.Module, forward: Callable[[Any], Tensor], lr: float = 3e-3) -> Callable[[Any, Tensor], None]:
    """Return one step of Adam on ``module``."""
    optimizer = torch.optim.Adam(module.parameters(), lr)

    def step(batch: Any, y: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([functional.cross_entropy(forward(batch), y)])
        optimizer.step()

    return step


class _Pyg(nn.Module):
    """Layers over an edge index, trimmed per layer."""

    def __init__(self, name: str, widths: Widths, num_layers: int) -> None:
        from torch_geometric.nn import GATConv, GCNConv, SAGEConv

        super().__init__()
        kinds = {"sage": SAGEConv, "gcn": GCNConv}
        layers = []
        for before, after, last in _pairs(widths, num_layers):
            if name == "gat":
                heads = 1 if last else HEADS
                layers.append(GATConv(before, after // heads, heads=heads))
            else:
                layers.append(kinds[name](before, after))
        self.convs = nn.ModuleList(layers)
        self.activate = functional.elu if name == "gat" else functional.relu

    def forward(self, batch: tuple[Tensor, Tensor, list[int], list[int]]) -> Tensor:
        from torch_geometric.utils import trim_to_layer

        x, edge_index, num_nodes, num_edges = batch
        for index, conv in enumerate(self.convs):
            x, edge_index, _ = trim_to_layer(index, num_nodes, num_edges, x, edge_index)
            x = conv(x, edge_index)
            x = x if index == len(self.convs) - 1 else self.activate(x)
        return x[: num_nodes[0]]


class _Dgl(nn.Module):
    """Layers over blocks."""

    def __init__(self, name: str, widths: Widths, num_layers: int) -> None:
        from dgl.nn.pytorch import GATConv, GraphConv, SAGEConv

        super().__init__()
        layers: list[nn.Module] = []
        for before, after, last in _pairs(widths, num_layers):
            if name == "gat":
                heads = 1 if last else HEADS
                layers.append(GATConv(before, after // heads, heads, allow_zero_in_degree=True))
            elif name == "gcn":
                layers.append(GraphConv(before, after, allow_zero_in_degree=True))
            else:
                layers.append(SAGEConv(before, after, "mean"))
        self.convs = nn.ModuleList(layers)
        self.activate = functional.elu if name == "gat" else functional.relu

    def forward(self, batch: tuple[list[Any], Tensor]) -> Tensor:
        blocks, x = batch
        for index, (conv, block) in enumerate(zip(self.convs, blocks, strict=True)):
            x = conv(block, x).flatten(1)
            x = x if index == len(blocks) - 1 else self.activate(x)
        return x


def pyg(name: str, widths: Widths, num_layers: int) -> Contender:
    """Return PyG's step; raises ImportError without PyG."""
    module = _Pyg(name, widths, num_layers)

    def prepare(batch: MiniBatch) -> Any:
        return batch.x, batch.edge_index, list(batch.num_sampled_nodes), list(batch.num_sampled_edges)

    return Contender(prepare=prepare, step=trained(module, module))


def dgl(name: str, widths: Widths, num_layers: int) -> Contender:
    """Return DGL's step; raises ImportError without DGL. Blocks are made anew: they keep what one step computed."""
    module = _Dgl(name, widths, num_layers)
    return Contender(prepare=lambda batch: batch.to_dgl(), step=trained(module, module))


def _pairs(widths: Widths, num_layers: int) -> list[tuple[int, int, bool]]:
    before = [widths[0], *[widths[1]] * (num_layers - 1)]
    after = [*[widths[1]] * (num_layers - 1), widths[2]]
    return [(*pair, index == num_layers - 1) for index, pair in enumerate(zip(before, after, strict=True))]
