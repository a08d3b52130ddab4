"""Feature rows by node id: from memory, or from the store by direct reads that leave the page cache alone."""

import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from graphsys.core.errors import MemoryBudgetError, NodeIdError
from graphsys.core.types import Features, NodeIds
from graphsys.core.units import KIB, MIB, format_bytes
from graphsys.storage.direct import PAGE, DirectFile, Words, align_down, align_up, aligned_empty
from graphsys.storage.direct_rows import GATHER_THREADS, DirectRows, Engine
from graphsys.storage.flat import FlatArray
from graphsys.storage.jit import njit
from graphsys.storage.row_extents import RowExtents
from graphsys.storage.stream import LINE_NBYTES, fence, stream_row, streams

# Reading on over a smaller gap costs a disk less than a further request: it reads 16 KiB as often a second as 4 KiB.
GATHER_GAP = 16 * KIB
GATHER_EXTENT = 128 * KIB
SCAN_GAP = 256 * KIB
SCAN_EXTENT = 8 * MIB
_SCAN_BUFFERS = 3  # two reads in flight while the consumer has the third
_SCAN_SHARE = _SCAN_BUFFERS + 1  # one more for rows that are picked out of a buffer


class ReadCount:
    """Bytes that were needed and bytes that were asked of the device; several threads may add to it."""

    def __init__(self) -> None:
        self.useful_bytes = 0
        self.read_bytes = 0
        self._lock = threading.Lock()

    def add(self, *, useful_bytes: int, read_bytes: int) -> None:
        """Add to both sums."""
        with self._lock:
            self.useful_bytes += useful_bytes
            self.read_bytes += read_bytes


class FeatureReader(Protocol):
    """Gathers feature rows by node id. Trainers see features only through this."""

    count: ReadCount

    def gather(self, node: NodeIds, out: Features) -> None:
        """Write the row of ``node[i]`` into ``out[i]``; blocks until all rows are in.

        Args:
            node: [V] int64 global ids, any order, repeats allowed.
            out: [V, D] buffer owned by the caller, C-contiguous.

        Raises:
            NodeIdError: An id is outside [0, num_nodes); ``out`` is left unchanged.
            CorruptError: The feature file is truncated.
            DiskError: The system refused a read.
        """

    def close(self) -> None:
        """Let go of threads, files and memory; waits for reads in flight."""


class MemoryFeatures:
    """All rows in a private array. Safe to use from several threads.

    Args:
        x: [N, D] float32.
        threads: threads that share one gather; the result does not depend on it.
    """

    def __init__(self, x: Features, *, threads: int = 1) -> None:
        self.count = ReadCount()
        self._x = x
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="graphsys-features")

    def gather(self, node: NodeIds, out: Features) -> None:
        """See :meth:`FeatureReader.gather`."""
        _check_ids(node, self._x.shape[0])
        cuts = np.linspace(0, node.shape[0], self._threads + 1).astype(np.int64)
        take = _stream if streams(out, out.shape[1] * out.itemsize) else _take
        tasks = [self._pool.submit(take, self._x, node[a:b], out[a:b]) for a, b in pairwise(cuts)]
        wait(tasks)
        for task in tasks:
            task.result()
        self.count.add(useful_bytes=out.nbytes, read_bytes=0)

    def close(self) -> None:
        """Let go of the rows."""
        self._pool.shutdown()
        self._x = self._x[:0]


class DirectFeatures:
    """Rows of a store's feature array, read when asked for; near rows share one read. Safe to use from several threads.

    Args:
        array: [N, D] float32.
        threads: reads in flight, where they go through threads.
        rings: whether reads go through io_uring where it can be had.
    """

    def __init__(self, array: FlatArray, *, threads: int = GATHER_THREADS, rings: bool = True) -> None:
        self.count = ReadCount()
        self._extents = RowExtents.of(array, gap=GATHER_GAP, extent=GATHER_EXTENT)
        self._rows = DirectRows(array.path, self._extents, threads=threads, rings=rings)

    @property
    def engine(self) -> Engine:
        """What keeps reads in flight."""
        return self._rows.engine

    def gather(self, node: NodeIds, out: Features) -> None:
        """See :meth:`FeatureReader.gather`."""
        _check_ids(node, self._extents.num_rows)
        ascending, order = _sorted(node)
        read_bytes = self._rows.gather(ascending, order, out.view(np.uint32))
        self.count.add(useful_bytes=node.shape[0] * self._extents.row_nbytes, read_bytes=read_bytes)

    def close(self) -> None:
        """Wait for reads in flight, then close the file."""
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def scan_rows(
    array: FlatArray, ascending: NodeIds, *, memory: int, count: ReadCount | None = None
) -> Generator[tuple[slice, Features], None, None]:
    """Yield the rows of ``ascending`` from front to back, reading ahead; a dense request becomes a sequential scan.

    Args:
        array: [N, D] float32.
        ascending: [R] int64 global ids, ascending and distinct.
        memory: bytes that the buffers may take.
        count: where to add the bytes.

    Yields:
        A slice of ``ascending``, and its rows [*, D] float32, valid until the next step.

    Raises:
        NodeIdError: An id is outside [0, N), or not greater than the one before it.
        MemoryBudgetError: ``memory`` does not hold four rows and their pages.
    """
    packed: Features | None = None
    for place, rows in scan_extents(array, ascending, memory=memory, count=count):
        if place.stop - place.start == rows.shape[0]:
            yield place, rows
            continue
        if packed is None:
            nbytes = RowExtents.of(array, gap=SCAN_GAP, extent=scan_extent(array, memory)).buffer_nbytes
            packed = np.empty((nbytes // array.spec.row_nbytes, array.shape[1]), np.float32)
        wanted = ascending[place]
        _take(rows, wanted - wanted[0], packed)
        yield place, packed[: wanted.shape[0]]


def scan_extents(
    array: FlatArray, ascending: NodeIds, *, memory: int, count: ReadCount | None = None
) -> Generator[tuple[slice, Features], None, None]:
    """Yield, as :func:`scan_rows` does, a slice of ``ascending`` and all rows from its first id to its last.

    Raises:
        NodeIdError, MemoryBudgetError: As :func:`scan_rows`.
    """
    extents = RowExtents.of(array, gap=SCAN_GAP, extent=scan_extent(array, memory))
    _check_ids(ascending, extents.num_rows)
    fall = _first_fall(ascending)
    if fall:
        raise NodeIdError(f"node {ascending[fall]} follows node {ascending[fall - 1]}; a scan needs ascending ids")
    first = extents.split(ascending)
    num_extents = first.shape[0] - 1
    buffers = [aligned_empty(extents.buffer_nbytes) for _ in range(_SCAN_BUFFERS)]
    in_flight = _SCAN_BUFFERS - 1  # one is with the consumer
    with DirectFile(array.path) as file, ThreadPoolExecutor(in_flight, thread_name_prefix="graphsys-scan") as ahead:

        def read(index: int) -> Future[tuple[Words, int]]:
            wanted = ascending[first[index] : first[index + 1]]
            return ahead.submit(extents.read, file, wanted, buffers[index % _SCAN_BUFFERS])

        pending = deque(read(index) for index in range(min(in_flight, num_extents)))
        for index in range(num_extents):
            rows, read_bytes = pending.popleft().result()
            if index + in_flight < num_extents:
                pending.append(read(index + in_flight))
            place = slice(int(first[index]), int(first[index + 1]))
            if count is not None:
                count.add(useful_bytes=(place.stop - place.start) * extents.row_nbytes, read_bytes=read_bytes)
            yield place, rows.view(np.float32)


def scan_extent(array: FlatArray, memory: int) -> int:
    """Return the bytes that one read of a scan spans so that all its buffers fit ``memory``.

    Raises:
        MemoryBudgetError: Not even one row fits.
    """
    row_nbytes = array.spec.row_nbytes
    extent = min(SCAN_EXTENT, align_down(memory // _SCAN_SHARE) - 2 * PAGE)
    if extent < row_nbytes or extent <= 0:
        need = _SCAN_SHARE * (align_up(row_nbytes) + 3 * PAGE)
        raise MemoryBudgetError(
            f"scanning {array.folder}, with rows of {format_bytes(row_nbytes)}, needs {format_bytes(need)} beside the "
            f"other buffers of its stage, and {format_bytes(max(memory, 0))} are left; raise memory"
        )
    return extent


def _check_ids(node: NodeIds, num_nodes: int) -> None:
    if node.shape[0] and (node.min() < 0 or node.max() >= num_nodes):
        wrong = node[(node < 0) | (node >= num_nodes)][0]
        raise NodeIdError(f"node {wrong} has no feature row; the ids of these features are 0 to {num_nodes - 1}")


def _sorted(node: NodeIds) -> tuple[NodeIds, NodeIds]:
    """Return ``node`` [V] in ascending order, and where each entry of it stood."""
    shift = max(node.shape[0] - 1, 1).bit_length()
    keys = (node << shift) | np.arange(node.shape[0])  # plain numbers sort several times faster than an index of them
    keys.sort()
    return keys >> shift, keys & ((1 << shift) - 1)


@njit
def _first_fall(node: NodeIds) -> int:
    """Return the first index whose id is not greater than the one before it; 0 when there is none."""
    for index in range(1, node.shape[0]):
        if node[index] <= node[index - 1]:
            return index
    return 0


@njit
def _take(rows: Features, index: NodeIds, out: Features) -> None:
    for place in range(index.shape[0]):
        for column in range(rows.shape[1]):
            out[place, column] = rows[index[place], column]


@njit
def _stream(rows: Features, index: NodeIds, out: Features) -> None:
    """Do what :func:`_take` does, past the processor's caches."""
    source, target, width = rows.reshape(-1), out.reshape(-1), out.shape[1]
    lines = width * out.itemsize // LINE_NBYTES
    for place in range(index.shape[0]):
        stream_row(target, place * width, source, index[place] * width, lines)
    fence()
