"""Checksums of equally long chunks of a run of bytes."""

import xxhash

from graphsys.storage.direct import Bytes


class ChunkHash:
    """The xxh3_64 of every chunk, as 16 hex digits, of bytes that come in parts of any size."""

    def __init__(self, chunk_nbytes: int) -> None:
        self._chunk_nbytes = chunk_nbytes
        self._hash = xxhash.xxh3_64()
        self._pending = 0  # bytes of the open chunk so far

    @property
    def missing(self) -> int:
        """Bytes that the open chunk lacks; 0 when none is open."""
        return self._chunk_nbytes - self._pending if self._pending else 0

    def update(self, raw: Bytes) -> list[str]:
        """Add ``raw``; return the checksums of the chunks that it completes."""
        complete = []
        start = 0
        while start < raw.nbytes:
            take = min(raw.nbytes - start, self._chunk_nbytes - self._pending)
            self._hash.update(raw[start : start + take].data)
            self._pending += take
            start += take
            if self._pending == self._chunk_nbytes:
                complete.append(self._hash.hexdigest())
                self._hash.reset()
                self._pending = 0
        return complete
