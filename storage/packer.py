"""From sampled batches to a window that training reads: plan what stays in memory, then bring in the other rows.

The features are scanned once per window, from front to back, and every row that is met goes to the batches that need
it. Which batches those are is sorted out beforehand, so the scan tests nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.progress import Task
from graphsys.core.types import NodeIds, ResidencyPlan
from graphsys.core.units import KIB, MIB, format_bytes
from graphsys.storage.codec import encode, row_nbytes
from graphsys.storage.direct import Bytes, aligned_empty
from graphsys.storage.features import SCAN_EXTENT, ReadCount, scan_rows
from graphsys.storage.flat import FlatArray
from graphsys.storage.jit import njit
from graphsys.storage.residency import plan_residency, residency_nbytes
from graphsys.storage.window import Window, WindowWriter

Longs = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_STAGE_NBYTES = 64 * MIB  # rows on their way into batches; more was not faster
_ENCODE_NBYTES = MIB  # rows encoded at a time
_FLUSH_NBYTES = 64 * MIB
_FETCH_NBYTES = 32  # per fetched row: its key, its distinct id, and what cutting the ids into extents takes


def pack_nbytes(num_accesses: int, num_slots: int) -> int:
    """Return the least memory, in bytes, that packing a window works with; row buffers grow with what is left."""
    return residency_nbytes(num_accesses, num_slots) + 2 * MIB


def pack_window(
    sample_path: Path,
    out_path: Path,
    features: FlatArray,
    *,
    num_slots: int,
    initial_slots: NodeIds,
    codec: str,
    with_rows: bool,
    memory: int,
    fingerprint: str,
    task: Task | None = None,
) -> ReadCount:
    """Write the window of ``sample_path`` again at ``out_path``, with residency and, where asked for, feature rows.

    The file appears whole or not at all. The samples stay where they are.

    Args:
        sample_path: a window of samples only.
        out_path: the window to write.
        features: [N, D] float32.
        num_slots: rows that the cache holds (S).
        initial_slots: [S] int64 global id in each slot when the window starts; -1 is empty.
        codec: how rows are encoded.
        with_rows: whether the rows go into the window, or are read from the store when they are needed.
        memory: bytes that packing may allocate.
        fingerprint: of all that the window is made from.
        task: advanced by one per batch in all.

    Returns:
        The bytes of the rows that the batches fetch, and the bytes read to bring them into the window.

    Raises:
        MemoryBudgetError: ``memory`` does not hold the plan and the row buffers.
        InputError: A feature lies beyond the range of the codec.
        CorruptError: Samples or features are not what was written.
        DiskError: The system refused.

    Cost:
        One scan of the features, the samples read twice, the window written once.
    """
    sample = Window.open(sample_path, None)
    num_accesses = sum(entry.num_nodes for entry in sample.entries)
    _check_memory(sample, num_accesses, num_slots, memory)
    plan = plan_residency(_Trace(sample), num_slots, initial_slots)
    header = replace(
        sample.header,
        fingerprint=fingerprint,
        dim=features.spec.shape[1],
        codec=codec,
        row_nbytes=row_nbytes(features.spec.shape[1], codec),
        num_slots=num_slots,
        has_residency=True,
        has_rows=with_rows,
    )
    count = ReadCount()
    with WindowWriter(out_path, header=header, flush_bytes=min(_FLUSH_NBYTES, max(memory // 8, MIB))) as writer:
        _copy_hops(sample, plan, writer, task if not with_rows else None)
        final_slots = plan.final_slot_node
        if with_rows:
            fetches = _sorted_fetches(plan)
            del plan  # it takes as much memory as what follows
            count = _pack_rows(writer, features, fetches, memory - 16 * num_slots, task)
        writer.close(initial_slots, final_slots)
    return count


def _check_memory(sample: Window, num_accesses: int, num_slots: int, memory: int) -> None:
    needed = pack_nbytes(num_accesses, num_slots) + 2 * sample.largest_nbytes
    if needed > memory:
        raise MemoryBudgetError(
            f"packing {sample.path}, {sample.header.num_batches} batches with {num_accesses} rows and {num_slots} "
            f"cache slots, needs {format_bytes(needed)} of memory and may use {format_bytes(memory)}; set pack.window "
            f"to fewer batches, lower pack.host_cache, or raise memory"
        )


class _Trace(Sequence[NodeIds]):
    """The node ids of a window's batches, read when they are asked for."""

    def __init__(self, sample: Window) -> None:
        self._sample = sample

    def __len__(self) -> int:
        return len(self._sample.entries)

    @overload
    def __getitem__(self, index: int) -> NodeIds: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NodeIds]: ...
    def __getitem__(self, index: int | slice) -> NodeIds | Sequence[NodeIds]:
        if isinstance(index, slice):
            return [self._sample.nodes(place) for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._sample.nodes(index)


def _copy_hops(sample: Window, plan: ResidencyPlan, writer: WindowWriter, task: Task | None) -> None:
    buffer = aligned_empty(sample.largest_nbytes)
    for index, residency in enumerate(plan.batches):
        batch = sample.read(index, buffer)
        writer.begin(batch.sampled, y=batch.y, residency=residency)
        if task is not None:
            task.advance()


def _sorted_fetches(plan: ResidencyPlan) -> tuple[Longs, int]:
    """Return [F] node << shift | batch of every row that some batch fetches, ascending, and the shift."""
    counts = [batch.fetch_node.shape[0] for batch in plan.batches]
    # The plan packed a position into the same word before, and a window has fewer batches than positions.
    shift = max(len(counts) - 1, 1).bit_length()
    keys = np.empty(sum(counts), np.int64)
    start = 0
    for index, batch in enumerate(plan.batches):
        part = keys[start : start + counts[index]]
        np.left_shift(batch.fetch_node, shift, out=part)
        part |= index
        start += counts[index]
    keys.sort()
    return keys, shift


class _Stage:
    """Encoded rows on their way from the scan into the batches.

    The fetches, in the order of the scan, are cut into stages that fit memory. Within a stage the rows of a batch lie
    together, in the order of their ids, so that each batch takes its rows by one write per stage.
    """

    def __init__(self, writer: WindowWriter, keys: Longs, shift: int, nbytes: int, task: Task | None) -> None:
        self._writer = writer
        self._keys = keys
        self._shift = shift
        self._task = task
        width = writer.header.row_nbytes
        self._num_rows = max(1, min(nbytes // width, keys.shape[0]))
        self._rows = aligned_empty(self._num_rows * width).reshape(self._num_rows, width)
        self._written = np.zeros(writer.header.num_batches, np.int64)  # rows of each batch that are in the file
        self._next = 0  # first fetch whose row has not come yet
        self._open()

    def _open(self) -> None:
        self._end = min(self._next + self._num_rows, self._keys.shape[0])
        counts = np.zeros_like(self._written)
        _count_batches(self._keys[self._next : self._end], self._shift, counts)
        self._offset = np.concatenate([[0], np.cumsum(counts)])  # where the rows of each batch start in the stage
        self._place = self._offset[:-1].copy()  # where the next row of each batch goes

    def take(self, node: NodeIds, encoded: Bytes) -> None:
        """Put the rows of ``node`` [R], the next ones of the scan, where they belong; write full stages."""
        end = int(np.searchsorted(self._keys, (node[-1] + 1) << self._shift))
        while self._next < end:
            stop = min(end, self._end)
            fetches = self._keys[self._next : stop]
            _place_rows(fetches, self._shift, node, encoded.view(np.uint64), self._place, self._rows.view(np.uint64))
            self._next = stop
            if stop == self._end:
                self._write()
                self._open()

    def _write(self) -> None:
        counts = np.diff(self._offset)
        for batch in np.flatnonzero(counts):
            rows = self._rows[self._offset[batch] : self._offset[batch + 1]]
            self._writer.write_rows(int(batch), int(self._written[batch]), rows)
        self._written += counts
        if self._task is not None:
            self._task.advance(self._written.shape[0] * counts.sum() / self._keys.shape[0])


def _pack_rows(
    writer: WindowWriter, features: FlatArray, fetches: tuple[Longs, int], memory: int, task: Task | None
) -> ReadCount:
    """Scan the features once and write the rows of every batch; return the bytes fetched and read."""
    keys, shift = fetches
    width, codec = writer.header.row_nbytes, writer.header.codec
    free = max(memory - _FETCH_NBYTES * keys.shape[0], 0)
    encoded = np.empty((max(1, min(_ENCODE_NBYTES, free // 16) // width), width), np.uint8)
    scan_memory = min(free // 4, 3 * SCAN_EXTENT + 128 * KIB)
    stage = _Stage(writer, keys, shift, min(_STAGE_NBYTES, free - encoded.nbytes - scan_memory), task)
    node, scanned, count = _distinct(keys, shift), ReadCount(), ReadCount()
    for place, rows in scan_rows(features, node, memory=scan_memory, count=scanned):
        for start in range(0, rows.shape[0], encoded.shape[0]):
            part = rows[start : start + encoded.shape[0]]
            ids = node[place][start : start + part.shape[0]]
            stage.take(ids, encode(part, codec, node=ids, out=encoded[: part.shape[0]]))
    if task is not None and not keys.shape[0]:
        task.advance(writer.header.num_batches)
    count.add(useful_bytes=keys.shape[0] * features.spec.row_nbytes, read_bytes=scanned.read_bytes)
    return count


def _distinct(keys: Longs, shift: int) -> NodeIds:
    node = np.empty(keys.shape[0], np.int64)
    return node[: _copy_distinct(keys, shift, node)]


@njit
def _copy_distinct(keys: Longs, shift: int, node: NodeIds) -> int:
    found = 0
    for key in keys:
        if found == 0 or node[found - 1] != key >> shift:
            node[found] = key >> shift
            found += 1
    return found


@njit
def _count_batches(keys: Longs, shift: int, counts: Longs) -> None:
    for key in keys:
        counts[key & ((1 << shift) - 1)] += 1


@njit
def _place_rows(keys: Longs, shift: int, node: NodeIds, encoded: Words, place: Longs, stage: Words) -> None:
    """Copy the row of each fetch to the next place of its batch; ``encoded`` [R, *] are the rows of ``node`` [R]."""
    row = np.searchsorted(node, keys[0] >> shift)
    for key in keys:
        while node[row] < key >> shift:
            row += 1
        batch = key & ((1 << shift) - 1)
        for column in range(stage.shape[1]):
            stage[place[batch], column] = encoded[row, column]
        place[batch] += 1
