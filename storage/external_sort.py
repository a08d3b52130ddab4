"""Sort more records than memory holds: partition by key range into a spill file, then sort one bucket at a time.

A record is a row of 64-bit words: first the keys, most significant first, then a payload. Equal keys keep the order in
which they were added, so a result never depends on the budget, on bucket borders or on threads.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.units import format_bytes
from graphsys.storage.direct import align_up, aligned_empty
from graphsys.storage.record_order import scatter, sort_records
from graphsys.storage.spill import Bucket, SpillFile

Records = npt.NDArray[np.uint64]  # [C, W] keys, then payload

_WORD = 8
_MAX_BUCKETS = 512
_MIN_BUFFER_BYTES = 64 << 10
_MAX_BUFFER_BYTES = 1 << 20
# Most blocks that live at once: W = 1 is sorted in place, so the block being consumed, the one being sorted and what
# the consumer derives from its own. With a payload the sorted copy, its keys and their order come on top.
_LIVE_BLOCKS_KEYS = 6
_LIVE_BLOCKS_PAYLOAD = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class SortBudget:
    """How a sort may use memory, in bytes."""

    bucket_bytes: int  # most bytes of records that are sorted at once
    buffer_bytes: int  # write buffers of all buckets together
    max_buckets: int = _MAX_BUCKETS

    @classmethod
    def within(cls, memory: int, words: int) -> "SortBudget":
        """Return the budget of a sort of ``words``-word records that may use ``memory`` bytes."""
        live = _LIVE_BLOCKS_KEYS if words == 1 else _LIVE_BLOCKS_PAYLOAD
        buffers = memory // 3
        return cls(
            bucket_bytes=max(memory // live, 1 << 20),
            buffer_bytes=buffers,
            max_buckets=max(2, min(_MAX_BUCKETS, buffers // _MIN_BUFFER_BYTES)),
        )


class ExternalSort:
    """Takes records in any order and gives them back in ascending order of their keys.

    Args:
        folder: Where the spill files go; the caller removes it.
        key_bounds: Exclusive upper bound of every key, most significant first.
        payload_words: Words that travel with the keys.
        group: Records whose last keys share ``key // group`` come in one block, as do all other equal keys.
        num_records: About how many will come, or None.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key_bounds: tuple[int, ...],
        payload_words: int,
        budget: SortBudget,
        group: int = 1,
        num_records: int | None = None,
    ) -> None:
        self._folder = folder
        self._bounds = key_bounds
        self._words = len(key_bounds) + payload_words
        self._group = group
        self._budget = budget
        self._expected = num_records
        self._held: list[Records] = []  # everything, while it fits into one bucket
        self._held_bytes = 0
        self._top: _Partition | None = None
        self.num_records = 0

    def add(self, records: Records) -> None:
        """Take ``records`` [C, W]; the array belongs to the sort from now on."""
        self.num_records += records.shape[0]
        if self._top is None:
            self._held.append(records)
            self._held_bytes += records.nbytes
            if self._held_bytes > self._budget.bucket_bytes:
                self._spill()
            return
        self._top.add(records)

    def _spill(self) -> None:
        seen = self.num_records
        self._top = self._partition(0, 0, self._bounds[0], max(self._expected or 0, seen), depth=0)
        for records in self._held:
            self._top.add(records)
        self._held, self._held_bytes = [], 0

    def _partition(self, column: int, low: int, high: int, num_records: int, *, depth: int) -> "_Partition":
        group = self._group if column == len(self._bounds) - 1 else 1
        path = self._folder / f"sort-{depth}-{column}-{low:x}.spill"
        return _Partition(path, column, low, high, group, self._words, self._wanted(num_records), self._budget)

    def _wanted(self, num_records: int) -> int:
        if self._expected is None:
            return self._budget.max_buckets
        # Twice the least number, because ranges of ids never fill evenly.
        wanted = 2 * -(-num_records * self._words * _WORD // self._budget.bucket_bytes)
        return max(2, min(wanted, self._budget.max_buckets))

    def blocks(self) -> Iterator[Records]:
        """Yield all records in ascending order, block by block; each block belongs to the receiver.

        Raises:
            MemoryBudgetError: More records than fit into memory share one key, so that no order can be made.
        """
        if self._top is None:
            held, self._held = self._held, []
            if held:
                yield sort_records(np.concatenate(held) if len(held) > 1 else held[0], len(self._bounds))
            return
        # While the receiver works on one block, the next one is read and sorted.
        with ThreadPoolExecutor(1, "graphsys-sort") as pool:
            ahead: Future[Records] | None = None
            for bucket in self._leaves(self._top, depth=0):
                ready, ahead = ahead, pool.submit(self._load, bucket)
                if ready is not None:
                    yield ready.result()
            if ahead is not None:
                yield ahead.result()

    def _load(self, bucket: Bucket) -> Records:
        return sort_records(bucket.read(), len(self._bounds))

    def _leaves(self, partition: "_Partition", *, depth: int) -> Iterator[Bucket]:
        for bucket, low, high in partition.finish():
            if bucket.nbytes <= self._budget.bucket_bytes:
                yield bucket
            else:
                yield from self._leaves(self._split(bucket, partition, low, high, depth + 1), depth=depth + 1)
        partition.close()

    def _split(self, bucket: Bucket, parent: "_Partition", low: int, high: int, depth: int) -> "_Partition":
        column = parent.column
        if high - low <= parent.group:  # one value of this key: the next key decides
            column, low = column + 1, 0
            if column == len(self._bounds):
                raise MemoryBudgetError(
                    f"the memory budget is too small: {bucket.num_records} equal records of {self._words * _WORD} "
                    f"bytes must be sorted at once, which needs about "
                    f"memory: {format_bytes(2 * _LIVE_BLOCKS_PAYLOAD * bucket.nbytes).replace(' ', '')}"
                )
            high = self._bounds[column]
        part = self._partition(column, low, high, bucket.num_records, depth=depth)
        for records in bucket.pieces():
            part.add(records)
        return part

    def close(self) -> None:
        """Remove what was spilled; a sort may be closed at any time."""
        if self._top is not None:
            self._top.close()


class _Partition:
    """One level of buckets: records whose key lies in [low, high), cut into ranges of 2**shift values."""

    def __init__(
        self, path: Path, column: int, low: int, high: int, group: int, words: int, wanted: int, budget: SortBudget
    ) -> None:
        self.column, self.low, self.high, self.group = column, low, high, group
        self.shift = max(0, (high - low - 1).bit_length() - (wanted.bit_length() - 1), group.bit_length() - 1)
        num_buckets = ((high - low - 1) >> self.shift) + 1
        per_bucket = min(max(budget.buffer_bytes // num_buckets, _MIN_BUFFER_BYTES), _MAX_BUFFER_BYTES)
        rows = max(512, per_bucket // (words * _WORD) // 512 * 512)  # whole pages, whatever the record width
        raw = aligned_empty(align_up(num_buckets * rows * words * _WORD))
        self._buffer = raw[: num_buckets * rows * words * _WORD].view(np.uint64).reshape(num_buckets, rows, words)
        self._fill = np.zeros(num_buckets, np.int64)
        self._spill = SpillFile(path, num_buckets, words)

    def add(self, records: Records) -> None:
        start, low, shift = 0, np.uint64(self.low), np.uint64(self.shift)
        while start < records.shape[0]:
            start, full = scatter(records, start, self.column, low, shift, self._buffer, self._fill)
            if full >= 0:
                self._flush(full)

    def _flush(self, index: int) -> None:
        self._spill.append(index, self._buffer[index, : self._fill[index]])
        self._fill[index] = 0

    def finish(self) -> Iterator[tuple[Bucket, int, int]]:
        """Yield (bucket, low, high) of every non-empty bucket, in key order; no record may follow."""
        for unfinished in np.flatnonzero(self._fill):
            self._flush(int(unfinished))
        del self._buffer
        self._spill.seal()
        for index in range(self._fill.shape[0]):
            low = self.low + (index << self.shift)
            bucket = self._spill.bucket(index)
            if bucket.num_records:
                yield bucket, low, min(low + (1 << self.shift), self.high)

    def close(self) -> None:
        self._spill.remove()
