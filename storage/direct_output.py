"""A file under construction, written in whole pages past the page cache.

Direct writes leave no dirty pages, which count against a memory cgroup, and need no flush that stalls the writer.
"""

import errno
import os
from pathlib import Path

from graphsys.storage.direct import PAGE, Bytes, align_down, aligned_empty
from graphsys.storage.files import disk_errors, drop_cache

_BOUNCE_NBYTES = 1 << 20


class DirectOutput:
    """Writes pages at any offset; falls back to buffered writes where the file system has no direct I/O.

    Args:
        partial: The file to create, or to empty.
        path: What errors call it: the name that it will get.
        flush_bytes: Buffered writes are flushed whenever so many bytes are dirty.

    Raises:
        DiskError: The system refused.
    """

    def __init__(self, partial: Path, path: Path, *, flush_bytes: int) -> None:
        self._path = path
        self._flush_bytes = flush_bytes
        self._dirty = 0
        self._bounce = aligned_empty(_BOUNCE_NBYTES)
        with disk_errors("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd, self._direct = _open(partial)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._fd < 0

    def reserve(self, offset: int, nbytes: int) -> None:
        """Keep room on the disk, filled with zeros.

        Raises:
            DiskError: The system refused; a full disk is met here.
        """
        with disk_errors("write", self._path):
            os.posix_fallocate(self._fd, offset, nbytes)

    def write(self, offset: int, *parts: Bytes) -> None:
        """Write ``parts`` one behind the other.

        Args:
            offset: multiple of 4096.
            parts: contiguous uint8 that together fill whole pages, anywhere in memory.

        Raises:
            DiskError: The system refused.
        """
        if len(parts) == 1 and parts[0].ctypes.data % PAGE == 0:
            self._write_pages(offset, parts[0])
            return
        filled = 0
        for part in parts:
            start = 0
            while start < part.nbytes:
                taken = min(part.nbytes - start, self._bounce.nbytes - filled)
                self._bounce[filled : filled + taken] = part[start : start + taken]
                start += taken
                filled += taken
                if filled == self._bounce.nbytes:
                    self._write_pages(offset, self._bounce)
                    offset += filled
                    filled = 0
        self._write_pages(offset, self._bounce[:filled])

    def _write_pages(self, offset: int, pages: Bytes) -> None:
        done = 0
        with disk_errors("write", self._path):
            while done < pages.nbytes:
                end = done + os.pwrite(self._fd, pages[done:].data, offset + done)
                if end < pages.nbytes and align_down(end) <= done:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # less than a page went in
                done = end if end == pages.nbytes else align_down(end)
            if not self._direct:
                self._flush(done)

    def _flush(self, nbytes: int) -> None:
        # Dirty pages count against a memory cgroup, which may kill the process instead of throttling it.
        self._dirty += nbytes
        if self._dirty >= self._flush_bytes:
            drop_cache(self._fd)
            self._dirty = 0

    def sync(self) -> None:
        """Bring everything to the device.

        Raises:
            DiskError: The system refused.
        """
        with disk_errors("write", self._path):
            os.fsync(self._fd)
            drop_cache(self._fd)

    def close(self) -> None:
        """Close the file as it is; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: Path) -> tuple[int, bool]:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(path, flags | os.O_DIRECT, 0o644), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags, 0o644), False
