"""Cuts a graph's in-edges into ranges of destinations, each with its edges sorted by block of sources.

A range is what one pass over the rows of all sources serves: its destinations' sums lie in memory, and its edges stand
in the order in which the pass meets their sources.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsys.core.types import EdgeType, NodeIds, edge_type_key
from graphsys.storage.direct import aligned_empty
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray
from graphsys.storage.jit import njit
from graphsys.storage.store import Store

EDGE_NBYTES = 6  # of a sorted edge: its source within the block, its target within the range
START_NBYTES = 8  # of a destination: where its edges start
MAX_BLOCK_ROWS = 1 << 16  # so that a source within its block takes two bytes

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Sources = npt.NDArray[np.uint16]
Targets = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRange:
    """Consecutive destinations with in-edges. Only a lone destination may lack some, which the next range holds."""

    first: int  # the first destination
    degree: NodeIds  # [n] in-degrees, edges of other ranges included
    is_open: bool  # the next range holds more edges of the destination, the only one
    block_rows: int  # sources of a block, a power of two
    offset: NodeIds  # [B + 1] edges of block b are [offset[b], offset[b + 1])
    source: Sources  # [E] uint16 within the block
    target: Targets  # [E] int32 within the range, ascending within a block

    @property
    def num_dst(self) -> int:
        """Number of destinations n."""
        return int(self.degree.shape[0])

    @property
    def num_edges(self) -> int:
        """Number of edges E."""
        return int(self.source.shape[0])

    def source_blocks(self) -> NodeIds:
        """Return the ascending blocks [*] that have an edge into the range."""
        return np.flatnonzero(np.diff(self.offset)).astype(np.int64)


class RangeReader:
    """Reads a store's in-edges from front to back, range by range, by direct reads."""

    def __init__(self, store: Store, edge_type: EdgeType) -> None:
        base = f"topology/{edge_type_key(edge_type)}"
        self.indptr: FlatArray = store.array(f"{base}/indptr")  # [N + 1] int64
        self._indices: FlatArray = store.array(f"{base}/indices")
        self.num_nodes = self.indptr.shape[0] - 1
        self.num_edges = self._indices.shape[0]
        self.count = ReadCount()

    @property
    def index_nbytes(self) -> int:
        """Bytes of a source id in the store."""
        return self._indices.spec.row_nbytes

    def ranges(self, *, nbytes: int, state_nbytes: int, block_rows: int, threads: int = 1) -> Iterator[EdgeRange]:
        """Yield ranges over all destinations, each as long as ``nbytes`` allows, and at least one edge long.

        Args:
            nbytes: Memory for a range: its edges, and the state of its destinations.
            state_nbytes: Of one destination.
            block_rows: Sources of a block, a power of two up to ``MAX_BLOCK_ROWS``.
            threads: Threads that sort; the result does not depend on it.
        """
        per_dst = state_nbytes + START_NBYTES
        reach = max(1, nbytes // per_dst)
        most_edges = max(1, (nbytes - per_dst) // (self.index_nbytes + EDGE_NBYTES))
        first = begin = 0
        while first < self.num_nodes:
            starts = self.indptr.read(first, min(first + reach, self.num_nodes) + 1)
            num_dst = _fitting(starts, begin, nbytes, per_dst, most_edges)
            end = int(starts[num_dst]) if num_dst else begin + most_edges
            starts = starts[: max(num_dst, 1) + 1].copy()
            yield self._range(first, starts, begin, end, block_rows, threads)
            self.count.add(useful_bytes=0, read_bytes=(end - begin) * self.index_nbytes + starts.nbytes)
            first, begin = first + num_dst, end

    def _range(self, first: int, starts: NodeIds, begin: int, end: int, block_rows: int, threads: int) -> EdgeRange:
        raw = self._indices.read(begin, end)
        local = np.clip(starts, begin, end) - begin
        offset, source, target = _sort_edges(raw, local, block_rows, -(-self.num_nodes // block_rows), threads)
        return EdgeRange(
            first=first,
            degree=np.diff(starts),
            is_open=end < starts[-1],
            block_rows=block_rows,
            offset=offset,
            source=source,
            target=target,
        )


def _sort_edges(
    raw: Ids, starts: NodeIds, block_rows: int, num_blocks: int, threads: int
) -> tuple[NodeIds, Sources, Targets]:
    """Return where each block of sources starts [B + 1], and sources [E] and targets [E] by block, then by target."""
    shift = block_rows.bit_length() - 1
    num_edges = raw.shape[0]
    source, target = _empty(num_edges, np.uint16), _empty(num_edges, np.int32)
    # Each thread takes consecutive destinations, and within a block its edges stand behind those of the thread before.
    cuts = np.searchsorted(starts, [num_edges * part // threads for part in range(1, threads)]).tolist()
    first, stop = [0, *cuts], [*cuts, starts.shape[0] - 1]
    count = np.zeros((threads, num_blocks), np.int64)

    def count_part(part: int) -> None:
        _count_blocks(raw[starts[first[part]] : starts[stop[part]]], shift, count[part])

    def place_part(part: int) -> None:
        _place_edges(raw, starts, first[part], stop[part], shift, place[part], source, target)

    with ThreadPoolExecutor(threads, thread_name_prefix="graphsys-sort") as pool:
        list(pool.map(count_part, range(threads)))
        offset = np.zeros(num_blocks + 1, np.int64)
        np.cumsum(count.sum(axis=0), out=offset[1:])
        place = offset[:-1] + np.cumsum(count, axis=0) - count
        list(pool.map(place_part, range(threads)))
    return offset, source, target


def num_ranges(*, num_nodes: int, num_edges: int, nbytes: int, state_nbytes: int, index_nbytes: int) -> int:
    """Return about how many ranges a graph is cut into."""
    kept = num_nodes * (state_nbytes + START_NBYTES) + num_edges * EDGE_NBYTES
    sorting = num_nodes * START_NBYTES + num_edges * (EDGE_NBYTES + index_nbytes)
    return max(1, -(-max(kept, sorting) // max(nbytes, 1)))


def _fitting(starts: NodeIds, begin: int, nbytes: int, per_dst: int, most_edges: int) -> int:
    """Return how many destinations fit with all their edges from ``begin`` on; 0 when the edges of one are too many."""
    edges = np.maximum(starts - begin, 0)
    kept = edges * EDGE_NBYTES + np.arange(starts.shape[0]) * per_dst
    fitting = min(
        int(np.searchsorted(kept, nbytes, side="right")), int(np.searchsorted(edges, most_edges, side="right"))
    )
    return max(fitting - 1, int(edges[1] <= most_edges))


def _empty(num: int, dtype: Any) -> Any:
    """Return an array [num] whose memory goes back to the system when it is freed."""
    return aligned_empty(num * np.dtype(dtype).itemsize).view(dtype)[:num]


@njit
def _count_blocks(source: Ids, shift: int, count: NodeIds) -> None:
    for edge in range(source.shape[0]):
        count[source[edge] >> shift] += 1


@njit
def _place_edges(
    raw: Ids, starts: NodeIds, first: int, stop: int, shift: int, place: NodeIds, source: Sources, target: Targets
) -> None:
    """Put the edges of destinations [first, stop) behind the earlier ones of their blocks, so that targets ascend."""
    mask = (1 << shift) - 1
    for node in range(first, stop):
        for edge in range(starts[node], starts[node + 1]):
            block = raw[edge] >> shift
            source[place[block]] = raw[edge] & mask
            target[place[block]] = node
            place[block] += 1
