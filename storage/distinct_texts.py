"""The distinct strings of a stream in the order of their hashes, inside a budget."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graphsys.core.errors import MemoryBudgetError
from graphsys.storage.external_ids import Hashes, hash_texts, same_text, text_buffers
from graphsys.storage.files import disk_errors, drop_cache
from graphsys.storage.jit import njit

_BITS = 5  # of the hash that one level of buckets looks at
_FLUSH_BYTES = 16 << 20
_SCHEMA = pa.schema([("text", pa.large_string())])


def distinct_texts(chunks: Iterator[Any], spill: Path, memory: int) -> Iterator[tuple[Hashes, Any]]:
    """Yield (hashes, strings) of all distinct strings, by ascending hash, then by bytes.

    Args:
        chunks: large_string arrays.
        spill: Folder for temporary files; the caller removes it.
        memory: Bytes that may be used.

    Cost:
        Nothing is spilled while the distinct strings fit into a fraction of the budget.
    """
    spill.mkdir(parents=True, exist_ok=True)
    yield from _distinct(chunks, spill, max(memory // 6, 1 << 16), depth=0)


def _distinct(chunks: Iterator[Any], spill: Path, limit: int, *, depth: int) -> Iterator[tuple[Hashes, Any]]:
    held: list[Any] = []
    nbytes = 0
    for chunk in chunks:
        held.append(_unique(chunk)[1])
        nbytes += held[-1].nbytes
        if nbytes > limit:
            held = [_unique(pa.concat_arrays(held))[1]]
            nbytes = held[0].nbytes
            if nbytes > limit // 2:  # little was repeated: it will not fit
                break
    else:
        if held:
            yield _unique(pa.concat_arrays(held))
        return
    buckets = _Buckets(spill, depth, limit)
    try:
        buckets.add(held.pop())
        for chunk in chunks:
            buckets.add(_unique(chunk)[1])
        for bucket in buckets.finish():
            yield from _distinct(bucket, spill, limit, depth=depth + 1)
    finally:
        buckets.close()


def _unique(texts: Any) -> tuple[Hashes, Any]:
    """Return hashes and strings without repeats, by ascending hash, then by bytes."""
    bounds, text = text_buffers(texts)
    hashes = hash_texts(bounds, text)
    order = np.argsort(hashes, kind="stable")
    keep = np.empty(order.shape[0], np.bool_)
    if _mark_first(hashes, order, bounds, text, keep):
        # Different strings with one hash are rare; their order must not depend on which came first.
        order = np.array(sorted(order, key=lambda row: (hashes[row], texts[int(row)].as_py().encode())), np.int64)
        _mark_first(hashes, order, bounds, text, keep)
    rows = order[keep]
    return hashes[rows], texts.take(pa.array(rows))


@njit
def _mark_first(hashes: Any, order: Any, bounds: Any, text: Any, keep: Any) -> bool:
    """Mark the first of equal strings; return whether different strings share a hash."""
    clash = False
    for place in range(order.shape[0]):
        keep[place] = True
        if place and hashes[order[place]] == hashes[order[place - 1]]:
            same = same_text(bounds, text, order[place], bounds, text, order[place - 1])
            keep[place] = not same
            clash = clash or not same
    return clash


class _Buckets:
    """Strings spilled by a few bits of their hashes."""

    def __init__(self, spill: Path, depth: int, limit: int) -> None:
        self._shift = 64 - _BITS * (depth + 1)
        if self._shift < 0:
            raise MemoryBudgetError(
                f"the memory budget is too small: strings with one hash take over {limit} bytes; raise memory"
            )
        self._files = [_TextFile(spill / f"texts-{depth}-{place}.spill") for place in range(1 << _BITS)]

    def add(self, texts: Any) -> None:
        """Take strings in the order of their hashes."""
        hashes = hash_texts(*text_buffers(texts))
        bucket = (hashes >> np.uint64(self._shift)) & np.uint64((1 << _BITS) - 1)
        ends = np.searchsorted(bucket, np.arange(1 << _BITS, dtype=np.uint64), side="right")
        start = 0
        for file, end in zip(self._files, map(int, ends), strict=True):
            if end > start:
                file.write(texts.slice(start, end - start))
            start = end

    def finish(self) -> Iterator[Iterator[Any]]:
        """Yield the chunks of every bucket, in the order of the hashes."""
        for file in self._files:
            yield file.read()

    def close(self) -> None:
        """Close what is open; files that are left go with the folder."""
        for file in self._files:
            file.close()


class _TextFile:
    """One bucket on disk; it keeps the page cache clean behind itself, as all large writers here do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unflushed = 0
        with disk_errors("write", path):
            self._file = path.open("wb")
            self._writer = pa.ipc.new_stream(self._file, _SCHEMA)

    def write(self, texts: Any) -> None:
        with disk_errors("write", self._path):
            self._writer.write_batch(pa.record_batch([texts], schema=_SCHEMA))
            self._unflushed += texts.nbytes
            if self._unflushed > _FLUSH_BYTES:
                self._flush()

    def _flush(self) -> None:
        self._file.flush()
        drop_cache(self._file.fileno())
        self._unflushed = 0

    def read(self) -> Iterator[Any]:
        """Yield what was written, then remove the file."""
        with disk_errors("write", self._path):
            self._writer.close()
            self._flush()
            self._file.close()
        with disk_errors("read", self._path), self._path.open("rb") as file:
            for batch in pa.ipc.open_stream(file):
                yield batch.column(0)
        self._path.unlink()

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
