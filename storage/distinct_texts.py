"""The distinct strings of a stream in the order of their hashes, inside a budget."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graphsys.core.errors import MemoryBudgetError
from graphsys.storage.external_ids import Hashes
from graphsys.storage.files import disk_errors, drop_cache
from graphsys.storage.text_set import TextSet

_BITS = 5  # of the hash that one level of buckets looks at
_FLUSH_BYTES = 16 << 20
_SCHEMA = pa.schema([("text", pa.large_string())])


def distinct_texts(chunks: Iterator[Any], spill: Path, memory: int) -> Iterator[tuple[Hashes, Any]]:
    """Yield (hashes, strings) of all distinct strings, by ascending hash, then by bytes.

    Args:
        chunks: large_string arrays.
        spill: Folder for temporary files; the caller removes it.
        memory: Bytes that may be used.

    Raises:
        MemoryBudgetError: A single string takes more than a good part of the budget.

    Cost:
        Nothing is spilled while the distinct strings fit into a third of the budget.
    """
    spill.mkdir(parents=True, exist_ok=True)
    yield from _distinct(chunks, spill, memory // 3, depth=0)


def _distinct(chunks: Iterator[Any], spill: Path, memory: int, *, depth: int) -> Iterator[tuple[Hashes, Any]]:
    known = TextSet(memory)
    buckets: _Buckets | None = None
    try:
        for chunk in chunks:
            start = known.add(chunk, 0)
            while start < len(chunk):
                if known.num_texts == 0:
                    raise MemoryBudgetError(
                        f"the memory budget is too small: an id is a string of {len(chunk[start].as_py())} characters"
                    )
                buckets = buckets or _Buckets(spill, depth)
                buckets.add(*known.drain())
                start = known.add(chunk, start)
        if buckets is None:
            if known.num_texts:
                yield known.drain()
            return
        buckets.add(*known.drain())
        del known  # its memory is needed for the buckets
        for bucket in buckets.finish():
            yield from _distinct(bucket, spill, memory, depth=depth + 1)
    finally:
        if buckets is not None:
            buckets.close()


class _Buckets:
    """Strings spilled by a few bits of their hashes."""

    def __init__(self, spill: Path, depth: int) -> None:
        self._shift = 64 - _BITS * (depth + 1)
        self._files = [_TextFile(spill / f"texts-{depth}-{place}.spill") for place in range(1 << _BITS)]

    def add(self, hashes: Hashes, texts: Any) -> None:
        """Take strings in the order of their hashes, all of which lie in the bucket that is being split."""
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
