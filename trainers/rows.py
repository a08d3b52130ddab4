"""How feature rows reach a batch, one class per mode; all give the same values for the same codec."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, Protocol

import numpy as np

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.types import BatchResidency, Features, NodeIds
from graphsys.core.units import MIB, format_bytes
from graphsys.storage.buffer_pool import BufferPool
from graphsys.storage.codec import encode, roundtrip
from graphsys.storage.direct import Bytes, aligned_empty
from graphsys.storage.features import DirectFeatures, FeatureReader, MemoryFeatures, ReadCount, scan_rows
from graphsys.storage.flat import FlatArray
from graphsys.storage.gather import CpuGather
from graphsys.storage.window import Window, WindowBatch, WindowEntry
from graphsys.trainers.plan import ASSEMBLED, PackPlan
from graphsys.trainers.slot_map import Ints, SlotMap

_LOAD_NBYTES = 8 * MIB  # rows read at a time into memory or into the cache
_ENCODE_ROWS = 8192
_DENSE = 32  # with one row in so many wanted, a scan of all rows is faster than reading the wanted ones

Fetches = Literal["none", "missing", "all"]  # which rows of a batch come from the disk; the others are in memory


Assemble = Callable[[], Features]


class Loaded(NamedTuple):
    """What was read into the cache before a batch."""

    rows: int = 0
    read_bytes: int = 0  # those of the store's reader, which counts by itself, left out


class RowSource(Protocol):
    """Brings the rows of a batch into ``x``. Batches are fetched by several threads, assembled by one, in order."""

    row_nbytes: int  # bytes that a fetched row takes, in the window's buffer or beside it
    beside_nbytes: int  # the part of row_nbytes that lies beside the window's buffer
    fetches: Fetches

    @property
    def held(self) -> NodeIds:
        """[S] global ids of the rows in the cache, in any order; -1: none."""

    def enter(self, window: Window, start: int, /) -> Loaded:
        """Get ready for the batches of ``window`` from index ``start`` on."""

    def fetch(self, batch: WindowBatch) -> Assemble:
        """Get what the batch needs from the disk; return what then makes x [V, D], in a buffer of its own.

        The batch is valid until x is made.
        """

    def close(self) -> None:
        """Let go of threads and memory."""


def fetched_rows(rows: RowSource, entry: WindowEntry) -> int:
    """Return how many rows of a batch come from the disk; the others come from memory."""
    counts = {"none": 0, "missing": entry.num_rows, "all": entry.num_nodes}
    return counts[rows.fetches]


def fetch_nbytes(rows: RowSource, entry: WindowEntry) -> int:
    """Return the bytes that :meth:`RowSource.fetch` allocates for a batch."""
    return fetched_rows(rows, entry) * rows.beside_nbytes


def open_reader(array: FlatArray, plan: PackPlan, *, memory: int, threads: int = 2) -> FeatureReader:
    """Return the reader of a plan's mode: all rows in memory, or direct reads from the store.

    Args:
        array: [N, D] float32.
        plan: what mode the run trains in.
        memory: bytes that the rows may take in mode memory.
        threads: threads that share a gather in mode memory.

    Raises:
        MemoryBudgetError: The features are larger than ``memory``.
        InputError: In mode memory, a value lies beyond the range of the codec.
    """
    if plan.mode != "memory":
        return DirectFeatures(array)
    if array.spec.nbytes > memory:
        raise MemoryBudgetError(
            f"{array.folder} takes {format_bytes(array.spec.nbytes)} and {format_bytes(memory)} of the memory budget "
            f"are left for it; raise memory, or choose another pack.mode than memory"
        )
    x = empty_rows(*array.shape)
    for start, rows in array.blocks(max(1, _LOAD_NBYTES // array.spec.row_nbytes)):
        part = x[start : start + rows.shape[0]]
        part[:] = rows
        roundtrip(part, plan.codec, node=np.arange(start, start + rows.shape[0]))
    return MemoryFeatures(x, threads=threads)


def open_rows(plan: PackPlan, array: FlatArray, reader: FeatureReader, *, threads: int) -> RowSource:
    """Return the source of a plan's mode. ``reader`` is :func:`open_reader`'s and stays the caller's."""
    if plan.mode == "memory":
        return MemoryRows(array, reader, plan)
    if plan.mode == "direct":
        return DirectRows(array, reader, plan)
    return CachedRows(array, reader, plan, threads=threads)


def empty_rows(num_rows: int, dim: int) -> Features:
    """Return an uninitialised [R, D] float32 buffer that starts on a page."""
    return aligned_empty(num_rows * dim * 4).view(np.float32).reshape(num_rows, dim)


class _Outputs:
    """Lends buffers for x."""

    def __init__(self, plan: PackPlan, dim: int, limit: int) -> None:
        self._dim = dim
        self._pool = BufferPool(plan.max_nodes * dim * 4, limit)

    def take(self, num_nodes: int) -> Features:
        """Return an uninitialised [V, D] buffer."""
        return self._pool.take(num_nodes * self._dim * 4).view(np.float32).reshape(num_nodes, self._dim)

    def close(self) -> None:
        """Let go of the buffers that nobody uses."""
        self._pool.close()


class MemoryRows:
    """All rows come from memory."""

    def __init__(self, array: FlatArray, reader: FeatureReader, plan: PackPlan) -> None:
        self.row_nbytes = 0
        self.held = np.empty(0, np.int64)
        self.beside_nbytes = 0
        self.fetches: Fetches = "none"
        self._reader = reader
        self._outputs = _Outputs(plan, array.shape[1], ASSEMBLED)

    def enter(self, _window: Window, _start: int, /) -> Loaded:
        """Read nothing: no row depends on the batches before."""
        return Loaded()

    def fetch(self, batch: WindowBatch) -> Assemble:
        """Return what gathers x."""
        return partial(self._gather, batch.sampled.node)

    def _gather(self, node: NodeIds) -> Features:
        x = self._outputs.take(node.shape[0])
        self._reader.gather(node, x)
        return x

    def close(self) -> None:
        """Let go of buffers; the reader is the caller's."""
        self._outputs.close()


class DirectRows:
    """All rows come from the store, for every batch anew."""

    def __init__(self, array: FlatArray, reader: FeatureReader, plan: PackPlan) -> None:
        self.row_nbytes = array.spec.row_nbytes
        self.held = np.empty(0, np.int64)
        self.beside_nbytes = self.row_nbytes
        self.fetches: Fetches = "all"
        self._reader = reader
        self._codec = plan.codec
        self._outputs = _Outputs(plan, array.shape[1], plan.read_ahead + ASSEMBLED)

    def enter(self, _window: Window, _start: int, /) -> Loaded:
        """Read nothing: no row depends on the batches before."""
        return Loaded()

    def fetch(self, batch: WindowBatch) -> Assemble:
        """Read x."""
        node = batch.sampled.node
        x = self._outputs.take(node.shape[0])
        self._reader.gather(node, x)
        roundtrip(x, self._codec, node=node)
        return lambda: x

    def close(self) -> None:
        """Let go of buffers; the reader is the caller's."""
        self._outputs.close()


class CachedRows:
    """Rows come from the cache, and otherwise from the window or, where it holds none, from the store."""

    def __init__(self, array: FlatArray, reader: FeatureReader, plan: PackPlan, *, threads: int) -> None:
        self.beside_nbytes = 0 if plan.mode == "packed" else plan.row_nbytes + array.spec.row_nbytes
        self.row_nbytes = self.beside_nbytes or plan.row_nbytes
        self.fetches: Fetches = "missing"
        self._array = array
        self._reader = reader
        self._codec = plan.codec
        self._gather = CpuGather(array.shape[1], plan.codec, threads=threads)
        self._outputs = _Outputs(plan, array.shape[1], ASSEMBLED)
        self._cache = aligned_empty(plan.num_slots * plan.row_nbytes).reshape(plan.num_slots, plan.row_nbytes)
        self._slots = SlotMap(plan.num_slots)

    @property
    def held(self) -> NodeIds:
        """[S] global ids of the rows in the cache, in any order; -1: none."""
        return self._slots.held

    def enter(self, window: Window, start: int, /) -> Loaded:
        """Bring the cache into the state that the window takes for granted at index ``start``.

        A window mostly starts where the one before it ended, and then there is nothing to do. At a start the rows come
        from the window that holds them, after a restart from the store.
        """
        wanted = window.initial_slots().copy()
        for index in range(start):
            residency = window.residency(index)
            wanted[residency.insert_slot] = residency.fetch_node[residency.insert_row]
        node, place = self._slots.enter(wanted)
        if start == 0 and node.shape[0] == window.header.num_initial_rows:
            return self._load_initial(window, place)
        if node.shape[0] * _DENSE < self._array.shape[0]:
            return self._load_few(node, place)
        return self._load(node, place)

    def _load_initial(self, window: Window, place: Ints) -> Loaded:
        """Read all rows that ``window`` starts with into ``place`` [R]."""
        done = 0
        for rows in window.initial_rows(_LOAD_NBYTES):
            self._cache[place[done : done + rows.shape[0]]] = rows
            done += rows.shape[0]
        return Loaded(rows=done, read_bytes=window.header.initial_rows_nbytes)

    def _load_few(self, node: NodeIds, place: Ints) -> Loaded:
        """Read the rows of ``node`` [R], few of the store's, into ``place`` [R]."""
        for start in range(0, node.shape[0], _ENCODE_ROWS):
            part = slice(start, start + _ENCODE_ROWS)
            self._cache[place[part]] = self._read(node[part])
        return Loaded(rows=node.shape[0])

    def _load(self, node: NodeIds, place: Ints) -> Loaded:
        """Read the rows of ascending ids ``node`` [R] into ``place`` [R] by a scan of the store's."""
        memory, count = 3 * max(_LOAD_NBYTES, 2 * self._array.spec.row_nbytes), ReadCount()
        for found, rows in scan_rows(self._array, node, memory=memory, count=count):
            for start in range(0, rows.shape[0], _ENCODE_ROWS):
                part = slice(found.start + start, min(found.start + start + _ENCODE_ROWS, found.stop))
                encoded = encode(rows[start : start + _ENCODE_ROWS], self._codec, node=node[part])
                self._cache[place[part]] = encoded
        return Loaded(rows=node.shape[0], read_bytes=count.read_bytes)

    def fetch(self, batch: WindowBatch) -> Assemble:
        """Read the rows that the cache does not hold, unless they came with the window."""
        if batch.residency is None:
            raise ValueError("a window without residency cannot be read through a cache; pack it")
        rows = batch.rows if batch.rows is not None else self._read(batch.residency.fetch_node)
        return partial(self._assemble, batch.sampled.num_nodes, batch.residency, rows)

    def _read(self, node: NodeIds) -> Bytes:
        rows = empty_rows(node.shape[0], self._array.shape[1])
        self._reader.gather(node, rows)
        return encode(rows, self._codec, node=node)

    def _assemble(self, num_nodes: int, residency: BatchResidency, rows: Bytes) -> Features:
        """Return x; then let rows enter the cache as planned."""
        x = self._outputs.take(num_nodes)
        self._gather.gather(rows, self._cache, self._slots.sources(residency.source), x)
        self._gather.insert(rows, self._cache, residency.insert_row, self._slots.places(residency.insert_slot))
        self._slots.put(residency.insert_slot, residency.fetch_node[residency.insert_row])
        return x

    def close(self) -> None:
        """Let go of the cache, of buffers and of the gather's threads."""
        self._gather.close()
        self._outputs.close()
        self._cache = self._cache[:0]
