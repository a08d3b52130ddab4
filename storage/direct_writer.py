"""Writes a file from front to back past the page cache, behind the caller's back.

A buffered write leaves dirty pages, which count against a memory cgroup, and the flush that bounds them stops the
writer: on a disk that takes 1 GB/s directly it reaches a third of that.
"""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from graphsys.core.errors import DiskError
from graphsys.core.units import KIB, MIB
from graphsys.storage.direct import PAGE, Bytes, align_down, align_up, aligned_empty
from graphsys.storage.direct_output import DirectOutput
from graphsys.storage.files import disk_errors

BUFFER_BYTES = 512 * KIB  # for files among many others
MOST_BUFFER_BYTES = 4 * MIB  # for one large file; more is not faster
_NUM_BUFFERS = 2  # one is filled while the other is written


class DirectWriter:
    """A drop-in for :class:`graphsys.storage.files.SequentialWriter`.

    Args:
        path: The file to create, or to empty.
        buffer_bytes: Size of each of the two buffers; rounded to pages.

    Raises:
        DiskError: The system refused; later calls raise it too when a write behind them failed.
    """

    def __init__(self, path: Path, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.path = path
        self.nbytes = 0
        size = max(align_down(buffer_bytes), PAGE)
        self._buffers = [aligned_empty(size) for _ in range(_NUM_BUFFERS)]
        self._writes: list[Future[None] | None] = [None] * _NUM_BUFFERS
        self._turn = 0  # buffer that is being filled
        self._filled = 0
        self._file = DirectOutput(path, path, flush_bytes=64 * MIB)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="graphsys-write")

    @staticmethod
    def memory_nbytes(buffer_bytes: int = BUFFER_BYTES) -> int:
        """Return the bytes that a writer holds."""
        return _NUM_BUFFERS * max(align_down(buffer_bytes), PAGE)

    def write(self, content: Any) -> None:
        """Append the bytes of ``content`` (bytes, or a C-contiguous array)."""
        raw: Bytes = np.frombuffer(content, np.uint8)
        start = 0
        while start < raw.nbytes:
            buffer = self._buffers[self._turn]
            taken = min(raw.nbytes - start, buffer.nbytes - self._filled)
            buffer[self._filled : self._filled + taken] = raw[start : start + taken]
            start += taken
            self._filled += taken
            self.nbytes += taken
            if self._filled == buffer.nbytes:
                self._send(buffer.nbytes)

    def _send(self, nbytes: int) -> None:
        """Write the first ``nbytes`` of the buffer at hand, and go on with the other once that is free."""
        offset = self.nbytes - self._filled
        self._writes[self._turn] = self._pool.submit(self._file.write, offset, self._buffers[self._turn][:nbytes])
        self._turn = (self._turn + 1) % _NUM_BUFFERS
        self._filled = 0
        self._wait(self._turn)

    def _wait(self, turn: int) -> None:
        write = self._writes[turn]
        if write is not None:
            self._writes[turn] = None
            write.result()

    def close(self) -> None:
        """Flush to the device and close."""
        padded = align_up(self._filled)
        self._buffers[self._turn][self._filled : padded] = 0
        if padded:
            self._send(padded)
        for turn in range(_NUM_BUFFERS):
            self._wait(turn)
        self._pool.shutdown()
        with disk_errors("write", self.path):
            os.truncate(self.path, self.nbytes)  # pages were written whole
        self._file.sync()
        self._file.close()

    def abort(self) -> None:
        """Close without care for the content."""
        self._pool.shutdown()
        with suppress(DiskError):  # the first error is the one to report
            self._file.close()
