"""From sampled batches to a window that training reads: plan what stays in memory, then bring in the other rows.

The features are scanned once per window, from front to back, and every row that is met goes to the batches that need
it. Which batches those are is sorted out beforehand, so the scan tests nothing.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.progress import Task
from graphsys.core.types import Features, NodeIds, ResidencyPlan
from graphsys.core.units import KIB, MIB, format_bytes
from graphsys.storage.codec import encode, row_nbytes
from graphsys.storage.direct import PAGE, Bytes, align_up, aligned_empty
from graphsys.storage.features import SCAN_EXTENT, ReadCount, scan_extents
from graphsys.storage.flat import FlatArray
from graphsys.storage.jit import njit
from graphsys.storage.residency import plan_residency, residency_nbytes
from graphsys.storage.stream import LINE_NBYTES, fence, stream_row, streams
from graphsys.storage.window import Window, WindowWriter

Longs = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_NO_NODES: NodeIds = np.empty(0, np.int64)

_STAGE_NBYTES = 256 * MIB  # most rows on their way into batches: the more, the longer each write
_RUN_NBYTES = MIB  # of a write into one batch that is long enough
_WRITERS = 4
_ENCODE_NBYTES = MIB  # rows encoded at a time
_FLUSH_NBYTES = 64 * MIB
_FETCH_NBYTES = 32  # per fetched row: its key, its distinct id, and what cutting the ids into extents takes


def pack_nbytes(num_accesses: int, num_slots: int, num_batches: int) -> int:
    """Return the least memory, in bytes, that packing a window works with; row buffers grow with what is left."""
    return residency_nbytes(num_accesses, num_slots, num_batches) + 2 * MIB


def pack_window(
    sample_path: Path,
    out_path: Path,
    features: FlatArray,
    *,
    num_slots: int,
    initial_slots: NodeIds,
    following: Sequence[NodeIds] = (),
    codec: str,
    with_rows: bool,
    with_initial_rows: bool = False,
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
        following: [V] int64 global ids of each batch after the window, as far as the cache looks ahead.
        codec: how rows are encoded.
        with_rows: whether the rows go into the window, or are read from the store when they are needed.
        with_initial_rows: whether those of the initial slots do too, for a training that starts here.
        memory: bytes that packing may allocate.
        fingerprint: of all that the window is made from.
        task: advanced by one per batch in all.

    Returns:
        The bytes of the rows that go into the window, and the bytes read to bring them there.

    Raises:
        MemoryBudgetError: ``memory`` does not hold the plan and the row buffers.
        InputError: A feature lies beyond the range of the codec.
        CorruptError: Samples or features are not what was written.
        DiskError: The system refused.

    Cost:
        One scan of the features, the samples read twice, the window written once.
    """
    sample = Window.open(sample_path, None)
    _check_memory(sample, following, num_slots, memory)
    plan = plan_residency(_Trace(sample), num_slots, initial_slots, following)
    initial = np.sort(initial_slots[initial_slots >= 0]) if with_rows and with_initial_rows else _NO_NODES
    header = replace(
        sample.header,
        fingerprint=fingerprint,
        dim=features.spec.shape[1],
        codec=codec,
        row_nbytes=row_nbytes(features.spec.shape[1], codec),
        num_slots=num_slots,
        num_initial_rows=initial.shape[0],
        has_residency=True,
        has_rows=with_rows,
    )
    count = ReadCount()
    with WindowWriter(out_path, header=header, flush_bytes=min(_FLUSH_NBYTES, max(memory // 8, MIB))) as writer:
        _copy_hops(sample, plan, writer, task if not with_rows else None)
        final_slots = plan.final_slot_node
        if with_rows:
            lists = [batch.fetch_node for batch in plan.batches]
            if initial.shape[0]:
                writer.begin_initial_rows()
                lists.append(initial)
            fetches = _sorted_fetches(lists)
            del plan, lists  # they take as much memory as what follows
            count = _pack_rows(writer, features, fetches, memory - 16 * num_slots, task)
        writer.close(initial_slots, final_slots)
    return count


def _check_memory(sample: Window, following: Sequence[NodeIds], num_slots: int, memory: int) -> None:
    num_accesses = sum(entry.num_nodes for entry in sample.entries) + sum(node.shape[0] for node in following)
    num_batches = sample.header.num_batches + len(following)
    needed = pack_nbytes(num_accesses, num_slots, num_batches) + 2 * sample.largest_nbytes
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


def _sorted_fetches(lists: Sequence[NodeIds]) -> tuple[Longs, int]:
    """Return [F] node << shift | index of every row that is fetched for ``lists[index]``, ascending, and the shift."""
    counts = [node.shape[0] for node in lists]
    # The plan packed a position into the same word before, and a window has fewer batches than positions.
    shift = max(len(counts) - 1, 1).bit_length()
    keys = np.empty(sum(counts), np.int64)
    start = 0
    for index, node in enumerate(lists):
        part = keys[start : start + counts[index]]
        np.left_shift(node, shift, out=part)
        part |= index
        start += counts[index]
    keys.sort()
    return keys, shift


class _Stage:
    """Where encoded rows wait for their write: page-aligned runs, one per batch.

    The fetches, in the order of the scan, are cut into stages that fit memory. Within a stage the rows of a batch lie
    together, in the order of their ids and as far behind the front of a page as in the file, so that each batch takes
    its rows by one write per stage, without a copy.
    """

    def __init__(self, nbytes: int) -> None:
        self.pages = aligned_empty(nbytes)
        self.words = self.pages.view(np.uint64)
        self.counts: Longs = np.empty(0, np.int64)  # rows of each batch
        self.start: Longs = np.empty(0, np.int64)  # byte at which the run of each batch starts
        self.first_row: Longs = np.empty(0, np.int64)  # rows of each batch that came before
        self.written: list[Future[None]] = []

    def settle(self) -> None:
        """Wait until everything in it is written; raise what its writers met."""
        wait(self.written)
        for task in self.written:
            task.result()
        self.written = []


class _Stages:
    """Takes encoded rows in the order of the scan; threads write one stage while the next is filled."""

    def __init__(
        self, writer: WindowWriter, pool: ThreadPoolExecutor, keys: Longs, shift: int, memory: int, task: Task | None
    ) -> None:
        self._writer = writer
        self._pool = pool
        self._keys = keys
        self._shift = shift
        self._task = task
        self._width = writer.header.row_nbytes
        header = writer.header
        num_batches = header.num_batches + (header.num_initial_rows > 0)  # the initial rows are one more
        nbytes = min(_STAGE_NBYTES, 2 * _RUN_NBYTES * num_batches, memory)  # half of them is being written
        # Every run may waste less than two pages.
        slack = 2 * PAGE * min(num_batches, keys.shape[0])
        self._num_rows = max(1, min((nbytes // 2 - slack) // self._width, keys.shape[0]))
        whole = align_up(self._num_rows * self._width) + 2 * PAGE * min(num_batches, self._num_rows)
        self._filling, self._writing = _Stage(whole), _Stage(whole)
        self._streamed = streams(self._filling.words, self._width)
        self._done = np.zeros(num_batches, np.int64)  # rows of each batch that lie in a stage or in the file
        self._next = 0  # first fetch whose row has not come yet
        self._open()

    def _open(self) -> None:
        stage = self._filling
        self._end = min(self._next + self._num_rows, self._keys.shape[0])
        stage.counts = np.zeros_like(self._done)
        _count_batches(self._keys[self._next : self._end], self._shift, stage.counts)
        stage.first_row = self._done.copy()
        room = stage.first_row * self._width % PAGE
        run_pages = np.where(stage.counts > 0, -(-(room + stage.counts * self._width) // PAGE), 0)
        stage.start = PAGE * (np.cumsum(run_pages) - run_pages)
        self._place = (stage.start + room) // 8  # the word at which the next row of each batch goes
        self._done += stage.counts

    def take(self, node: NodeIds, encoded: Bytes) -> None:
        """Put the rows of ``node`` [R], the next ones of the scan, where they belong; write full stages."""
        end = int(np.searchsorted(self._keys, (node[-1] + 1) << self._shift))
        while self._next < end:
            stop = min(end, self._end)
            fetches = self._keys[self._next : stop]
            place = _stream_rows if self._streamed else _place_rows
            place(fetches, self._shift, node, encoded.view(np.uint64), self._place, self._filling.words)
            self._next = stop
            if stop == self._end:
                self._write()
                self._open()

    def _write(self) -> None:
        # Rows of one batch are written in order: a stage is begun when the one before it is in the file.
        self._writing.settle()
        stage = self._filling
        self._filling, self._writing = self._writing, stage
        batches = np.flatnonzero(stage.counts)
        stage.written = [
            self._pool.submit(self._write_runs, stage, batches[thread::_WRITERS]) for thread in range(_WRITERS)
        ]
        if self._task is not None:
            self._task.advance(self._writer.header.num_batches * stage.counts.sum() / self._keys.shape[0])

    def _write_runs(self, stage: _Stage, batches: Longs) -> None:
        for batch in batches:
            start, first_row, num_rows = int(stage.start[batch]), int(stage.first_row[batch]), int(stage.counts[batch])
            nbytes = align_up(self._writer.run_room(first_row) + num_rows * self._width)
            self._writer.write_run(int(batch), first_row, num_rows, stage.pages[start : start + nbytes])

    def close(self) -> None:
        """Wait until all rows are in the file."""
        self._writing.settle()


def _pack_rows(
    writer: WindowWriter, features: FlatArray, fetches: tuple[Longs, int], memory: int, task: Task | None
) -> ReadCount:
    """Scan the features once and write the rows of every batch; return the bytes fetched and read."""
    keys, shift = fetches
    codec, plain = writer.header.codec, features.spec.row_nbytes == writer.header.row_nbytes
    free = max(memory - _FETCH_NBYTES * keys.shape[0], 0)
    block = _Block(writer, min(_ENCODE_NBYTES, free // 16))
    scan_memory = min(free // 4, 4 * SCAN_EXTENT + 128 * KIB)
    node, scanned, count = _distinct(keys, shift), ReadCount(), ReadCount()
    # Left before the writer is, also by an error: no thread writes to a file that is closed.
    with ThreadPoolExecutor(_WRITERS, thread_name_prefix="graphsys-pack") as pool:
        stages = _Stages(writer, pool, keys, shift, free - block.nbytes - scan_memory, task)
        for place, rows in scan_extents(features, node, memory=scan_memory, count=scanned):
            wanted = node[place]
            if codec == "float32" and plain:  # the store's rows as they are
                stages.take(np.arange(wanted[0], wanted[-1] + 1), rows.view(np.uint8))
                continue
            for start in range(0, wanted.shape[0], block.num_rows):
                ids = wanted[start : start + block.num_rows]
                stages.take(ids, block.encode(rows, ids - wanted[0], ids))
        stages.close()
    if task is not None and not keys.shape[0]:
        task.advance(writer.header.num_batches)
    count.add(useful_bytes=keys.shape[0] * features.spec.row_nbytes, read_bytes=scanned.read_bytes)
    return count


class _Block:
    """Rows picked out of the scan and encoded, few enough to stay in the processor's cache."""

    def __init__(self, writer: WindowWriter, nbytes: int) -> None:
        header = writer.header
        self._codec = header.codec
        self.num_rows = max(1, nbytes // (header.row_nbytes + 4 * header.dim))
        self._picked = np.empty((self.num_rows, header.dim), np.float32)
        self._encoded = np.empty((self.num_rows, header.row_nbytes), np.uint8)
        self.nbytes = self._picked.nbytes + self._encoded.nbytes

    def encode(self, rows: Features, index: NodeIds, node: NodeIds) -> Bytes:
        """Return ``rows[index]``, of global ids ``node``, encoded; valid until the next call."""
        picked = self._picked[: index.shape[0]]
        np.take(rows, index, axis=0, out=picked, mode="clip")
        return encode(picked, self._codec, node=node, out=self._encoded[: index.shape[0]])


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
    """Copy the row of each fetch to the next place of its batch, a word of ``stage``.

    ``encoded`` [R, *] are the rows of ``node`` [R].
    """
    row = np.searchsorted(node, keys[0] >> shift)
    for key in keys:
        while node[row] < key >> shift:
            row += 1
        batch = key & ((1 << shift) - 1)
        start = place[batch]
        for column in range(encoded.shape[1]):
            stage[start + column] = encoded[row, column]
        place[batch] = start + encoded.shape[1]


@njit
def _stream_rows(keys: Longs, shift: int, node: NodeIds, encoded: Words, place: Longs, stage: Words) -> None:
    """Do what :func:`_place_rows` does, past the processor's caches: the next reader of ``stage`` is the disk."""
    rows, width = encoded.reshape(-1), encoded.shape[1]
    lines = width * stage.itemsize // LINE_NBYTES
    row = np.searchsorted(node, keys[0] >> shift)
    for key in keys:
        while node[row] < key >> shift:
            row += 1
        batch = key & ((1 << shift) - 1)
        stream_row(stage, place[batch], rows, row * width, lines)
        place[batch] += width
    fence()
