"""The data that travels between stages: frozen, with shape, dtype and id space beside each field."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

NodeIds = npt.NDArray[np.int64]
Features = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
EdgeType = tuple[str, str, str]  # (source node type, relation, destination node type), as PyG spells it

DEFAULT_NODE_TYPE = "node"
DEFAULT_RELATION = "to"
SPLITS = ("train", "val", "test")


def edge_type_key(edge_type: EdgeType) -> str:
    """Return the folder name of an edge type, such as ``paper__cites__paper``."""
    return "__".join(edge_type)


def parse_edge_type(key: str) -> EdgeType:
    """Return the edge type that a folder name stands for; the inverse of :func:`edge_type_key`."""
    parts = key.split("__")
    if len(parts) != 3:
        raise ValueError(f"edge type '{key}' is not of the form source__relation__destination")
    return parts[0], parts[1], parts[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeChunk:
    """A run of edges on their way into a store, in dense node ids."""

    src: NodeIds  # [C] ids of the edge type's source node type
    dst: NodeIds  # [C] ids of its destination node type
    timestamp: NodeIds | None = None  # [C] int64
    weight: npt.NDArray[np.float32] | None = None  # [C]
    edge_attr: npt.NDArray[np.float32] | None = None  # [C, De]

    @property
    def num_edges(self) -> int:
        """Number of edges C."""
        return int(self.src.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """In-edges of one edge type in compressed sparse columns; the arrays may be memory maps."""

    indptr: npt.NDArray[np.int64]  # [N + 1] N = nodes of the destination type
    indices: npt.NDArray[np.int32] | npt.NDArray[np.int64]  # [E] source ids, ascending within a node
    num_src_nodes: int
    edge_id: npt.NDArray[np.int64] | None = None  # [E] row of the edge in the raw input
    timestamp: npt.NDArray[np.int64] | None = None  # [E]
    weight: npt.NDArray[np.float32] | None = None  # [E]

    @property
    def num_nodes(self) -> int:
        """Number of destination nodes N."""
        return int(self.indptr.shape[0]) - 1

    @property
    def num_edges(self) -> int:
        """Number of edges E."""
        return int(self.indices.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchKey:
    """Everything that a batch's randomness depends on."""

    seed: int
    epoch: int
    batch_id: int  # position of the batch within its epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedBatch:
    """The seeds of one mini-batch."""

    epoch: int
    batch_id: int
    node: NodeIds  # [B] global ids, unique


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """Message-passing edges in local ids; destinations are the first ``num_dst`` nodes of the batch."""

    indptr: npt.NDArray[np.int32]  # [num_dst + 1]
    indices: npt.NDArray[np.int32]  # [num_edges] local source ids, < num_src
    num_src: int

    @property
    def num_dst(self) -> int:
        """Number of destination nodes."""
        return int(self.indptr.shape[0]) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledBatch:
    """The sampled neighbourhood of one mini-batch; ids only, no features yet.

    Every node is expanded once, in the hop after the one that first reached it. One CSC therefore holds all hops: its
    destinations are a prefix of ``node``, and the edges that hop ``l`` and those before it need are a prefix of
    ``indices``. A model of L layers runs layer ``i`` on ``hops[L - 1 - i]``.
    """

    epoch: int
    batch_id: int
    node: NodeIds  # [V] global ids; seeds first, then hop by hop
    indptr: npt.NDArray[np.int32]  # [sum(num_sampled_nodes[:-1]) + 1]
    indices: npt.NDArray[np.int32]  # [E] local source ids
    num_sampled_nodes: tuple[int, ...]  # L + 1 counts, sum V, first is the batch size
    num_sampled_edges: tuple[int, ...]  # L counts, sum E
    in_degree: npt.NDArray[np.int32] | None = None  # [V] in-degree in the whole graph, where a model asks for it

    @property
    def batch_size(self) -> int:
        """Number of seeds B."""
        return self.num_sampled_nodes[0]

    @property
    def num_nodes(self) -> int:
        """Number of distinct nodes V."""
        return int(self.node.shape[0])

    @property
    def num_edges(self) -> int:
        """Number of sampled edges E."""
        return int(self.indices.shape[0])

    @property
    def hops(self) -> tuple[Hop, ...]:
        """The L nested prefixes, outermost last: views, no copies."""
        return tuple(self._prefix(depth) for depth in range(1, len(self.num_sampled_nodes)))

    def _prefix(self, depth: int) -> Hop:
        num_dst = sum(self.num_sampled_nodes[:depth])
        num_edges = sum(self.num_sampled_edges[:depth])
        return Hop(
            indptr=self.indptr[: num_dst + 1],
            indices=self.indices[:num_edges],
            num_src=sum(self.num_sampled_nodes[: depth + 1]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResidency:
    """Where one batch's rows come from, and which fetched rows enter the cache afterwards."""

    source: npt.NDArray[np.int32]  # [V] >= 0: index into the fetched rows; < 0: cache slot ~source
    fetch_node: NodeIds  # [R] global ids of the rows to fetch, ascending
    insert_row: npt.NDArray[np.int32]  # [I] index into the fetched rows
    insert_slot: npt.NDArray[np.int32]  # [I] slot that row overwrites once the batch is assembled; slots are unique


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidencyPlan:
    """Belady's MIN with bypass over a window, as index arrays."""

    num_slots: int
    initial_slot_node: NodeIds  # [S] global id that each slot holds when the window starts; -1 is empty
    final_slot_node: NodeIds  # [S] the same when it ends
    batches: Sequence[BatchResidency]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderCursor:
    """The next batch to train on; a run resumes from it exactly."""

    epoch: int
    next_batch_id: int
    rank: int = 0
    world_size: int = 1
