"""Writes a file from front to back past the page cache, while its caller makes the next bytes."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from graphsys.core.errors import DiskError
from graphsys.storage.direct import PAGE, Bytes, align_up, aligned_empty
from graphsys.storage.direct_output import DirectOutput
from graphsys.storage.files import disk_errors

_BUFFER_BYTES = 512 << 10  # of each of the two buffers: one is filled while the other is written


class DirectWriter:
    """Appends bytes; what is on its way to the disk lies in two small buffers, never in the page cache.

    An error of the disk is raised by the call that follows it, at the latest by :meth:`close`.

    Raises:
        DiskError: The system refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = DirectOutput(path, path, flush_bytes=64 << 20)
        self._filling, self._writing = (aligned_empty(_BUFFER_BYTES) for _ in range(2))
        self._filled, self._passed = 0, 0  # bytes in the buffer, and before it
        self._pool = ThreadPoolExecutor(1, "graphsys-write")
        self._ahead: Future[None] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes appended so far."""
        return self._passed + self._filled

    def write(self, content: Any) -> None:
        """Append the bytes of ``content`` (bytes, or a C-contiguous array)."""
        raw: Bytes = np.frombuffer(content, np.uint8)
        start = 0
        while start < raw.nbytes:
            taken = min(raw.nbytes - start, _BUFFER_BYTES - self._filled)
            self._filling[self._filled : self._filled + taken] = raw[start : start + taken]
            start += taken
            self._filled += taken
            if self._filled == _BUFFER_BYTES:
                self._pass_on()

    def _pass_on(self) -> None:
        self._wait()
        self._filling, self._writing = self._writing, self._filling
        self._ahead = self._pool.submit(self._file.write, self._passed, self._writing)
        self._passed += self._filled
        self._filled = 0

    def _wait(self) -> None:
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            ahead.result()

    def close(self) -> None:
        """Bring everything to the device and close."""
        self._wait()
        self._pool.shutdown()
        if self._filled:
            self._filling[self._filled : align_up(self._filled)] = 0
            self._file.write(self._passed, self._filling[: align_up(self._filled)])
            if self.nbytes % PAGE:
                with disk_errors("write", self.path):
                    os.truncate(self.path, self.nbytes)
        self._file.sync()
        self._file.close()

    def abort(self) -> None:
        """Close without care for the content."""
        with suppress(DiskError):  # the first error is the one to report
            self._wait()
        self._pool.shutdown()
        self._file.close()
