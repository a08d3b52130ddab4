"""Cuts a graph's in-edges into chunks of whole destinations whose sources' rows fit in memory together."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.types import EdgeType, NodeIds, edge_type_key
from graphsys.core.units import MIB, format_bytes
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray
from graphsys.storage.store import Store
from graphsys.trainers.node_set import NodeSet

# Shares of the memory budget. Rows get the most: a chunk of twice the rows serves more than twice the edges.
_ROWS_SHARE = 0.55
_EDGES_SHARE = 0.10
_STEP_SHARE = 0.15
_HUB_SHARE = 0.80  # what one destination too large for a step may take, all together
_INDPTR_ROWS = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """Bytes that one layer takes while it computes, upper estimate."""

    row: int  # per gathered row
    edge: int  # per edge of a step: its ends, and messages before and after they are weighed
    node: int  # per source of a step: its row again, and what the layer makes of it

    @classmethod
    def of(cls, dim: int, width: int) -> Self:
        """Return the cost of a layer with inputs of ``dim`` columns, no tensor inside being wider than ``width``."""
        return cls(row=4 * dim + 12, edge=80 + 8 * width, node=32 + 4 * dim + 8 * width)

    @property
    def per_source(self) -> int:
        """Bytes of a destination per source when no source repeats."""
        return self.edge + self.node


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLimits:
    """How much one chunk and one step of computation may hold; a function of the run's config and the graph's shape."""

    memory: int  # the budget that the rest follows from
    max_rows: int  # distinct nodes of a chunk
    max_edges: int  # edges of a chunk
    step_bytes: int  # for one step of computation
    max_degree: int  # in-degree above which a destination gets a chunk of its own
    hub_degree: int  # in-degree above which the budget does not do

    @classmethod
    def of(cls, memory: int, cost: LayerCost) -> Self:
        """Return the limits within ``memory`` bytes."""
        step = int(memory * _STEP_SHARE)
        return cls(
            memory=memory,
            max_rows=max(1, int(memory * _ROWS_SHARE) // cost.row),
            max_edges=max(1, int(memory * _EDGES_SHARE) // 16),
            step_bytes=step,
            max_degree=max(1, step // cost.per_source),
            hub_degree=int(memory * _HUB_SHARE) // (cost.per_source + cost.row + 16),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive destinations with all their in-edges, in global ids."""

    first: int  # the first destination
    indptr: NodeIds  # [n + 1] starts at 0
    source: npt.NDArray[np.int32] | npt.NDArray[np.int64]  # [E]

    @property
    def num_dst(self) -> int:
        """Number of destinations n."""
        return int(self.indptr.shape[0]) - 1

    def steps(self, cost: LayerCost, step_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield ranges [a, b) of destinations, counted within the chunk, that one step computes; at least one each."""
        total = self.indptr * cost.per_source + np.arange(self.num_dst + 1) * cost.node
        start = 0
        while start < self.num_dst:
            fitting = int(np.searchsorted(total, total[start] + step_bytes, side="right")) - 1
            stop = max(fitting, start + 1)
            yield start, stop
            start = stop


class EdgeReader:
    """Reads chunks of a store's in-edges from front to back, by direct reads."""

    def __init__(self, store: Store, edge_type: EdgeType) -> None:
        base = f"topology/{edge_type_key(edge_type)}"
        self._store = store
        self._node_type = edge_type[2]
        self._indptr: FlatArray = store.array(f"{base}/indptr")
        self._indices: FlatArray = store.array(f"{base}/indices")
        self._starts: NodeIds = self._indptr.memmap()
        self.num_nodes = self._indptr.shape[0] - 1
        self.count = ReadCount()

    def chunks(self, limits: ChunkLimits, members: NodeSet) -> Iterator[Chunk]:
        """Yield chunks over all destinations; ``members`` holds the nodes of the chunk until the next is asked for."""
        first = 0
        while first < self.num_nodes:
            indptr = self._indptr.read(first, min(first + _INDPTR_ROWS, self.num_nodes) + 1)
            begin, local = int(indptr[0]), indptr - indptr[0]
            reach = max(1, int(np.searchsorted(local, limits.max_edges, side="right")) - 1)
            source = self._indices.read(begin, begin + int(local[reach]))
            members.clear()
            taken = members.grow(first, local[: reach + 1], source, limits.max_rows, limits.max_degree)
            chunk = Chunk(first=first, indptr=local[: taken + 1].copy(), source=source[: local[taken]].copy())
            del indptr, local, source
            held = chunk.source.nbytes + chunk.indptr.nbytes
            self.count.add(useful_bytes=held, read_bytes=held)
            yield chunk
            first += taken

    def in_degree(self, node: NodeIds) -> npt.NDArray[np.int32]:
        """Return the number of in-edges [*] of nodes [*]."""
        degree: npt.NDArray[np.int32] = (self._starts[node + 1] - self._starts[node]).astype(np.int32)
        return degree

    def check_degrees(self, limits: ChunkLimits) -> None:
        """Make sure that every node's in-edges fit, before hours of work meet one that does not.

        Raises:
            MemoryBudgetError: One node has more in-edges than the budget holds.
        """
        for first in range(0, self.num_nodes, _INDPTR_ROWS):
            degree = np.diff(self._indptr.read(first, min(first + _INDPTR_ROWS, self.num_nodes) + 1))
            worst = int(degree.argmax())
            if degree[worst] > limits.hub_degree:
                raise self._hub_error(first + worst, int(degree[worst]), limits)

    def _hub_error(self, node: int, degree: int, limits: ChunkLimits) -> MemoryBudgetError:
        name = self._store.id_map(self._node_type).to_external(np.array([node]))[0]
        needed = limits.memory * (degree + 1) // max(limits.hub_degree, 1)
        return MemoryBudgetError(
            f"{self._store.path}: exact inference needs all {degree} in-edges of node {name} at once, and a memory "
            f"budget of {format_bytes(limits.memory)} holds {limits.hub_degree}; set memory to at least "
            f"{needed // MIB + 1}MiB"
        )
