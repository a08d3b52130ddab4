"""DGL: its neighbour sampler, features in a memory map, SAGEConv on blocks."""

import os
import warnings
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

os.environ.setdefault("DGLBACKEND", "pytorch")
warnings.filterwarnings("ignore")

import dgl  # noqa: E402 - the backend must be named before
import torch  # noqa: E402

from peers.common import (  # noqa: E402
    Array,
    Count,
    Options,
    StoreArrays,
    measure_batches,
    options,
    seed_batches,
)


class Sage(torch.nn.Module):
    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(dgl.nn.SAGEConv(a, b, "mean") for a, b in pairwise(widths))

    def forward(self, blocks: list[Any], x: torch.Tensor) -> torch.Tensor:
        for index, (block, layer) in enumerate(zip(blocks, self.layers, strict=True)):
            x = layer(block, x)
            if index + 1 < len(self.layers):
                x = x.relu()
        return x


class Sampler:
    """Draws the blocks of seeds."""

    def __init__(self, made: Options, store: StoreArrays) -> None:
        indptr, indices = (torch.from_numpy(array) for array in store.topology())
        edges = ("csc", (indptr, indices, torch.empty(0, dtype=torch.int64)))
        self._graph = dgl.graph(edges, num_nodes=indptr.shape[0] - 1)
        self._sampler = dgl.dataloading.NeighborSampler(made.fanouts[::-1])

    def sample(self, seeds: Array) -> tuple[torch.Tensor, list[Any]]:
        """Return the input nodes [V] and the blocks."""
        inputs, _, blocks = self._sampler.sample(self._graph, torch.from_numpy(seeds))
        return inputs, blocks


class Trainer:
    def __init__(self, made: Options, store: StoreArrays) -> None:
        torch.manual_seed(0)
        self.model = Sage([store.dim, *[made.hidden] * (len(made.fanouts) - 1), store.num_classes])
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self._labels = torch.from_numpy(store.labels())

    def step(self, seeds: Array, blocks: list[Any], x: torch.Tensor) -> None:
        y = self._labels[torch.from_numpy(seeds)]
        loss = torch.nn.functional.cross_entropy(self.model(blocks, x), y)
        self.optimizer.zero_grad()
        torch.autograd.backward([loss])
        self.optimizer.step()


def count(inputs: torch.Tensor, blocks: list[Any]) -> Count:
    return Count(nodes=inputs.shape[0], edges=sum(block.num_edges() for block in blocks))


def main() -> None:
    made = options()
    torch.set_num_threads(made.threads)
    store = StoreArrays(made.store)
    sampler = Sampler(made, store)
    nodes = store.train_nodes()
    about = {"torch": torch.__version__, "dgl": dgl.__version__}
    measure_batches(made, nodes.shape[0], batches(made, store, sampler, nodes), lambda: about)


def batches(made: Options, store: StoreArrays, sampler: Sampler, nodes: Array) -> Iterator[Count]:
    trainer = Trainer(made, store) if made.task == "epoch" else None
    x = None if made.task == "sample" else torch.from_numpy(store.mapped_features())
    for seeds in seed_batches(nodes, made.batch_size):
        inputs, blocks = sampler.sample(seeds)
        if x is not None:
            rows = torch.index_select(x, 0, inputs)
            if trainer is not None:
                trainer.step(seeds, blocks, rows)
        yield count(inputs, blocks)


if __name__ == "__main__":
    main()
