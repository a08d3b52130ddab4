"""Graphs, batches and runs for the tests of models and training."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsys.core.config import RunConfig, parse_run
from graphsys.core.progress import SilentProgress, Task
from graphsys.core.types import BatchKey, LoaderCursor, NodeIds, Topology
from graphsys.models.base import LayerHop, edge_index_of
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.trainers.read_ahead import LoaderStats


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGraph:
    """An undirected graph without self-loops or repeated edges, in memory."""

    topology: Topology
    edge_index: Tensor  # [2, E] int64, both directions, by destination
    x: Tensor  # [N, D] float32
    y: Tensor  # [N] int64


def memory_graph(*, num_nodes: int = 60, num_pairs: int = 150, num_features: int = 7, seed: int = 0) -> MemoryGraph:
    """Return the same graph for the same arguments; some nodes are isolated, some have many neighbours."""
    rng = np.random.default_rng(seed)
    ends = (num_nodes * rng.random((num_pairs, 2)) ** 2).astype(np.int64)
    pairs = np.unique(np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1), axis=0)
    src, dst = np.concatenate([pairs, pairs[:, ::-1]]).T
    order = np.lexsort((src, dst))
    src, dst = src[order], dst[order]
    indptr = np.concatenate([[0], np.bincount(dst, minlength=num_nodes).cumsum()])
    return MemoryGraph(
        topology=Topology(indptr=indptr, indices=src.astype(np.int32), num_src_nodes=num_nodes),
        edge_index=torch.from_numpy(np.stack([src, dst])),
        x=torch.from_numpy(rng.standard_normal((num_nodes, num_features), np.float32)),
        y=torch.from_numpy(np.arange(num_nodes) % 3),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorBatch:
    """The least that a model and a step ask of a mini-batch."""

    x: Tensor
    indptr: Tensor
    indices: Tensor
    num_sampled_nodes: Sequence[int]
    num_sampled_edges: Sequence[int]
    in_degree: Tensor | None = None
    y: Tensor | None = None
    epoch: int = 0
    batch_id: int = 0

    @property
    def edge_index(self) -> Tensor:
        return edge_index_of(self.indptr, self.indices)

    @property
    def batch_size(self) -> int:
        return self.num_sampled_nodes[0]

    def to_dgl(self) -> tuple[Sequence[Any], Tensor]:
        raise NotImplementedError("these batches are for PyG models")


def sampled(
    graph: MemoryGraph, seeds: Sequence[int], fanouts: Sequence[int], *, epoch: int = 0, batch_id: int = 0
) -> TensorBatch:
    """Return the sampled batch of ``seeds``, with degrees and labels."""
    key = BatchKey(seed=0, epoch=epoch, batch_id=batch_id)
    batch = sample_neighbors(graph.topology, np.asarray(seeds, np.int64), fanouts, key=key, with_degree=True)
    assert batch.in_degree is not None
    return TensorBatch(
        x=graph.x[torch.from_numpy(batch.node)],
        indptr=torch.from_numpy(batch.indptr),
        indices=torch.from_numpy(batch.indices),
        num_sampled_nodes=batch.num_sampled_nodes,
        num_sampled_edges=batch.num_sampled_edges,
        in_degree=torch.from_numpy(batch.in_degree),
        y=graph.y[torch.from_numpy(np.asarray(seeds, np.int64))],
        epoch=epoch,
        batch_id=batch_id,
    )


def whole_hop(graph: MemoryGraph) -> LayerHop:
    """Return all edges of the graph as one layer's hop."""
    return topology_hop(graph.topology)


def topology_hop(topology: Topology) -> LayerHop:
    """Return all edges of a graph of one node type as one layer's hop."""
    degree = torch.from_numpy(np.diff(topology.indptr).astype(np.int32))
    indptr, indices = torch.from_numpy(topology.indptr), torch.from_numpy(topology.indices)
    return LayerHop(indptr=indptr, indices=indices, in_degree=degree)


def all_nodes(graph: MemoryGraph) -> NodeIds:
    """Return every node id."""
    return np.arange(graph.x.shape[0])


def run_config(store: Path, out: Path, **sections: Any) -> RunConfig:
    """Return a small run; ``sections`` are merged into it, such as ``trainer={"epochs": 3}``."""
    tree: dict[str, Any] = {
        "store": str(store),
        "out": str(out),
        "memory": "64MiB",
        "sampler": {"fanouts": [3, 2], "batch_size": 16, "threads": 1},
        "model": {"hidden": 8, "dropout": 0.5},
        "trainer": {"epochs": 3, "threads": 1, "device": "cpu"},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_run(tree)


class MemoryFeed:
    """Batches sampled from a graph in memory when they are asked for: what a loader gives, without disk or threads."""

    def __init__(
        self,
        graph: MemoryGraph,
        run: RunConfig,
        *,
        validation: bool = True,
        alone: bool = False,
        batch_size: int = 16,
    ) -> None:
        self.validates_alone = alone
        self._graph = graph
        self._run = run
        self._validation = validation
        num_train = graph.x.shape[0] // 2
        self._train = [range(at, min(at + batch_size, num_train)) for at in range(0, num_train, batch_size)]
        self._val = [range(num_train, num_train + 10), range(num_train + 10, num_train + 20)]

    @property
    def steps_per_epoch(self) -> int:
        return len(self._train)

    @property
    def batches_per_epoch(self) -> int:
        return len(self._train)

    def num_seeds(self, first: int, stop: int) -> int:
        return sum(len(self._train[batch]) for batch in range(first, stop))

    def train(self, cursor: LoaderCursor) -> AbstractContextManager[Iterator[TensorBatch]]:
        def batches() -> Iterator[TensorBatch]:
            start = cursor.epoch * self.steps_per_epoch + cursor.next_batch_id
            for position in range(start, self._run.trainer.epochs * self.steps_per_epoch):
                epoch, batch_id = divmod(position, self.steps_per_epoch)
                seeds = list(self._train[batch_id])
                yield sampled(self._graph, seeds, self._run.sampler.fanouts, epoch=epoch, batch_id=batch_id)

        return nullcontext(batches())

    def validation(self) -> AbstractContextManager[Iterator[TensorBatch]] | None:
        batches = (sampled(self._graph, list(seeds), self._run.sampler.fanouts) for seeds in self._val)
        return nullcontext(batches) if self._validation else None

    @property
    def mode(self) -> str:
        return "memory"

    def stats(self) -> LoaderStats:
        return LoaderStats()


class InterruptedTrainingError(Exception):
    """Stands for a kill in the middle of a training."""


class BreakOff(SilentProgress):
    """A progress display that breaks the work off after ``steps`` units."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def start(self, title: str, total: float | None, unit: str) -> Task:
        del title, total, unit
        return self

    def advance(self, amount: float = 1) -> None:
        self.left -= int(amount)
        if self.left <= 0:
            raise InterruptedTrainingError

    def note(self, text: str) -> None:
        del text
