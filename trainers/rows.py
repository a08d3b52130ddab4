"""How feature rows reach a batch, one class per mode; all give the same values for the same codec."""

from typing import Protocol

import numpy as np

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.types import Array, BatchResidency, Features, NodeIds
from graphsys.core.units import MIB, format_bytes
from graphsys.storage.codec import encode, roundtrip
from graphsys.storage.direct import aligned_empty
from graphsys.storage.features import DirectFeatures, FeatureReader, MemoryFeatures, scan_rows
from graphsys.storage.flat import FlatArray
from graphsys.storage.gather import CpuGather
from graphsys.storage.window import Window, WindowBatch, WindowEntry
from graphsys.trainers.plan import PackPlan

_LOAD_NBYTES = 8 * MIB  # rows read at a time into memory or into the cache
_ENCODE_ROWS = 8192


class RowSource(Protocol):
    """Brings the rows of a batch into ``x``. Batches are fetched by several threads, assembled by one, in order."""

    row_nbytes: int  # bytes that a fetched row takes, in the window's buffer or beside it
    held: NodeIds  # [S] global id of the row in each slot of the cache; -1: none

    def enter(self, window: Window, start: int) -> None:
        """Get ready for the batches of ``window`` from index ``start`` on."""

    def fetch(self, batch: WindowBatch) -> Array:
        """Return what :meth:`assemble` needs from the disk; views into the window's buffer are allowed."""

    def assemble(self, batch: WindowBatch, fetched: Array) -> Features:
        """Return x [V, D] in a buffer of its own."""

    def fetched_rows(self, entry: WindowEntry) -> int:
        """Return how many rows of a batch come from the disk; the others come from memory."""

    def fetch_nbytes(self, entry: WindowEntry) -> int:
        """Return the bytes that :meth:`fetch` allocates for a batch."""

    def close(self) -> None:
        """Let go of threads and memory."""


def open_reader(array: FlatArray, plan: PackPlan, *, memory: int, threads: int = 2) -> FeatureReader:
    """Return the reader of a plan's mode: all rows in memory, or direct reads from the store.

    Args:
        array: [N, D] float32.
        plan: what mode the run trains in.
        memory: bytes that the rows may take in mode memory.
        threads: reads in flight, or threads that share a gather in mode memory.

    Raises:
        MemoryBudgetError: The features are larger than ``memory``.
        InputError: In mode memory, a value lies beyond the range of the codec.
    """
    if plan.mode != "memory":
        return DirectFeatures(array, threads=threads)
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
        return MemoryRows(array, reader)
    if plan.mode == "direct":
        return DirectRows(array, reader, plan.codec)
    return CachedRows(array, reader, plan, threads=threads)


def empty_rows(num_rows: int, dim: int) -> Features:
    """Return an uninitialised [R, D] float32 buffer that starts on a page."""
    return aligned_empty(num_rows * dim * 4).view(np.float32).reshape(num_rows, dim)


class MemoryRows:
    """All rows come from memory."""

    def __init__(self, array: FlatArray, reader: FeatureReader) -> None:
        self.row_nbytes = 0
        self.held = np.empty(0, np.int64)
        self._dim = array.shape[1]
        self._reader = reader

    def enter(self, window: Window, start: int) -> None:
        """Do nothing: no row depends on the batches before."""

    def fetch(self, batch: WindowBatch) -> Array:  # noqa: ARG002 - the seam's signature
        """Return nothing: all rows are there."""
        return np.empty(0, np.float32)

    def assemble(self, batch: WindowBatch, fetched: Array) -> Features:  # noqa: ARG002 - the seam's signature
        """See :meth:`RowSource.assemble`."""
        x = empty_rows(batch.sampled.num_nodes, self._dim)
        self._reader.gather(batch.sampled.node, x)
        return x

    def fetched_rows(self, entry: WindowEntry) -> int:  # noqa: ARG002 - the seam's signature
        """Return 0."""
        return 0

    def fetch_nbytes(self, entry: WindowEntry) -> int:  # noqa: ARG002 - the seam's signature
        """Return 0."""
        return 0

    def close(self) -> None:
        """Do nothing: the reader is the caller's."""


class DirectRows:
    """All rows come from the store, for every batch anew."""

    def __init__(self, array: FlatArray, reader: FeatureReader, codec: str) -> None:
        self.row_nbytes = array.spec.row_nbytes
        self.held = np.empty(0, np.int64)
        self._dim = array.shape[1]
        self._reader = reader
        self._codec = codec

    def enter(self, window: Window, start: int) -> None:
        """Do nothing: no row depends on the batches before."""

    def fetch(self, batch: WindowBatch) -> Array:
        """Return x."""
        x = empty_rows(batch.sampled.num_nodes, self._dim)
        self._reader.gather(batch.sampled.node, x)
        roundtrip(x, self._codec, node=batch.sampled.node)
        return x

    def assemble(self, batch: WindowBatch, fetched: Array) -> Features:  # noqa: ARG002 - the seam's signature
        """See :meth:`RowSource.assemble`."""
        return fetched

    def fetched_rows(self, entry: WindowEntry) -> int:
        """Return V."""
        return entry.num_nodes

    def fetch_nbytes(self, entry: WindowEntry) -> int:
        """Return the bytes of x."""
        return entry.num_nodes * self.row_nbytes

    def close(self) -> None:
        """Do nothing: the reader is the caller's."""


class CachedRows:
    """Rows come from the cache, and otherwise from the window or, where it holds none, from the store."""

    def __init__(self, array: FlatArray, reader: FeatureReader, plan: PackPlan, *, threads: int) -> None:
        self._packed = plan.mode == "packed"
        self.row_nbytes = plan.row_nbytes if self._packed else plan.row_nbytes + array.spec.row_nbytes
        self._array = array
        self._reader = reader
        self._codec = plan.codec
        self._gather = CpuGather(array.shape[1], plan.codec, threads=threads)
        self._cache = aligned_empty(plan.num_slots * plan.row_nbytes).reshape(plan.num_slots, plan.row_nbytes)
        self.held = np.full(plan.num_slots, -1, np.int64)  # global id of the row in each slot; -1: none

    def enter(self, window: Window, start: int) -> None:
        """Bring the cache into the state that the window takes for granted at index ``start``.

        A window mostly starts where the one before it ended, and then there is nothing to do. After a restart the rows
        are read from the store.
        """
        wanted = window.initial_slots().copy()
        for index in range(start):
            residency = _residency(window.read(index))
            wanted[residency.insert_slot] = residency.fetch_node[residency.insert_row]
        slots = np.flatnonzero((wanted != self.held) & (wanted >= 0))
        order = slots[np.argsort(wanted[slots])]
        self._load(wanted[order], order)
        self.held = wanted

    def _load(self, node: NodeIds, slot: NodeIds) -> None:
        """Read the rows of ascending ids ``node`` [R] into ``slot`` [R]."""
        memory = 3 * max(_LOAD_NBYTES, 2 * self._array.spec.row_nbytes)
        for place, rows in scan_rows(self._array, node, memory=memory):
            for start in range(0, rows.shape[0], _ENCODE_ROWS):
                part = slice(place.start + start, min(place.start + start + _ENCODE_ROWS, place.stop))
                encoded = encode(rows[start : start + _ENCODE_ROWS], self._codec, node=node[part])
                self._cache[slot[part]] = encoded

    def fetch(self, batch: WindowBatch) -> Array:
        """Return the encoded rows [R, row_nbytes] that the cache does not hold."""
        if batch.rows is not None:
            return batch.rows
        node = _residency(batch).fetch_node
        rows = empty_rows(node.shape[0], self._array.shape[1])
        self._reader.gather(node, rows)
        return encode(rows, self._codec, node=node)

    def assemble(self, batch: WindowBatch, fetched: Array) -> Features:
        """See :meth:`RowSource.assemble`; then lets rows enter the cache as planned."""
        residency = _residency(batch)
        x = empty_rows(batch.sampled.num_nodes, self._array.shape[1])
        self._gather.gather(fetched, self._cache, residency.source, x)
        self._gather.insert(fetched, self._cache, residency.insert_row, residency.insert_slot)
        self.held[residency.insert_slot] = residency.fetch_node[residency.insert_row]
        return x

    def fetched_rows(self, entry: WindowEntry) -> int:
        """Return R."""
        return entry.num_rows

    def fetch_nbytes(self, entry: WindowEntry) -> int:
        """Return the bytes of the rows as the store has them and encoded; none when the window holds them."""
        return 0 if self._packed else entry.num_rows * self.row_nbytes

    def close(self) -> None:
        """Let go of the cache and of the gather's threads."""
        self._gather.close()
        self._cache = self._cache[:0]


def _residency(batch: WindowBatch) -> BatchResidency:
    if batch.residency is None:
        raise ValueError("a window without residency cannot be read through a cache; pack it")
    return batch.residency
