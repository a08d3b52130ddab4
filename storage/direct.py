"""Reads past the page cache, in aligned blocks, so that the memory budget is ours to spend."""

import errno
import mmap
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import CorruptError
from graphsys.storage.files import disk_errors

PAGE = 4096
HUGE_PAGE = 2 << 20

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]  # what rows are copied as, whatever they hold
WORD = 4  # bytes


def align_down(offset: int, step: int = PAGE) -> int:
    """Return the largest multiple of ``step`` that is <= ``offset``."""
    return offset - offset % step


def align_up(offset: int, step: int = PAGE) -> int:
    """Return the smallest multiple of ``step`` that is >= ``offset``."""
    return -(-offset // step) * step


def aligned_empty(nbytes: int) -> Bytes:
    """Return a page-aligned uint8 buffer of at least one byte; its memory goes back to the system when freed."""
    pages = mmap.mmap(-1, max(align_up(nbytes), PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= HUGE_PAGE:
        # A large buffer is touched whole: in huge pages its first use costs a third. Some kernels have none.
        with suppress(OSError):
            pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype=np.uint8)[:nbytes]


class DirectFile:
    """A file opened for direct reads; falls back to buffered reads where the file system has no direct I/O.

    Safe to use from several threads: every read names its own offset and buffer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with disk_errors("read", path):
            self.nbytes = path.stat().st_size
            self._fd, self.direct = self._open(path)

    @staticmethod
    def _open(path: Path) -> tuple[int, bool]:
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECT), True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return os.open(path, os.O_RDONLY), False

    @property
    def fileno(self) -> int:
        """The open file's descriptor; valid until :meth:`close`."""
        return self._fd

    def read_into(self, offset: int, out: Bytes) -> None:
        """Fill ``out`` with the bytes at ``offset``; what lies past the end of the file stays as it was.

        Args:
            offset: multiple of 4096.
            out: page-aligned buffer whose size is a multiple of 4096.

        Raises:
            DiskError: The system refused.
            CorruptError: The file ends before the bytes it should hold.
        """
        wanted = min(out.nbytes, self.nbytes - offset)
        done = 0
        view = out.data
        with disk_errors("read", self.path):
            while done < wanted:
                end = done + os.preadv(self._fd, [view[done:]], offset + done)
                # A direct read must start on a block again; one that gains no block has met the end of the file.
                if end < wanted and align_down(end) <= done:
                    break
                done = end if end >= wanted else align_down(end)
        if done < wanted:
            raise CorruptError(
                f"{self.path} is truncated: {offset + done} bytes found, {self.nbytes} expected. "
                f"Run `graphsys verify` on it and make it again"
            )
        if not self.direct:
            os.posix_fadvise(self._fd, offset, wanted, os.POSIX_FADV_DONTNEED)

    def read(self, offset: int, nbytes: int) -> Bytes:
        """Return ``nbytes`` bytes at any ``offset``, in a fresh buffer."""
        start = align_down(offset)
        buffer = aligned_empty(align_up(offset + nbytes) - start)
        self.read_into(start, buffer)
        return buffer[offset - start : offset - start + nbytes]

    def close(self) -> None:
        """Close the file; further reads fail."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
