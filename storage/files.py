"""Writes that are whole or absent: temporary name, fsync, rename, fsync of the folder."""

import ctypes
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

from graphsys.core.errors import DiskError

PARTIAL_SUFFIX = ".partial"
_CLAIM_WAIT_S = 1.0  # a killed run's other processes are gone by then
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of <fcntl.h> and <linux/fs.h>

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder, then run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space, then run the same command again",
    errno.EACCES: "permission denied; check the owner and mode of the folder",
    errno.EPERM: "the operation is not permitted there; check the owner and mode of the folder",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "no such file or folder; check the path",
    errno.EIO: "the device reports an input/output error; check the disk",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "something else lies there; choose another path",
    errno.EISDIR: "it is a folder, not a file",
}


@contextmanager
def disk_errors(action: str, path: Path) -> Iterator[None]:
    """Turn an operating-system error of the block into one sentence about ``path``.

    Args:
        action: What was being done, such as "write" or "read".

    Raises:
        DiskError: The system refused.
    """
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise DiskError(f"cannot {action} {path}: {reason}") from error


def fsync_path(path: Path) -> None:
    """Flush a file's or a folder's own entry to the device."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(path: Path) -> None:
    """Create a folder and the parents it lacks; a power cut loses none of them once this returns."""
    missing = list(takewhile(lambda folder: not folder.is_dir(), (path, *path.parents)))
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        fsync_path(folder.parent)


def partial_path(path: Path) -> Path:
    """Return the hidden sibling under which ``path`` is built."""
    return path.with_name(f".{path.name}{PARTIAL_SUFFIX}")


def remove_path(path: Path) -> None:
    """Remove a file or a folder with all it holds; a missing one is fine."""
    with disk_errors("remove", path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def remove_artefact(folder: Path) -> None:
    """Remove a folder; a kill at any moment leaves it whole, or what is left of it under its temporary name."""
    partial = partial_path(folder)
    remove_path(partial)
    with disk_errors("remove", folder):
        folder.rename(partial)
    remove_path(partial)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the name ``path`` when the block ends well, and vanishes when it does not.

    Raises:
        DiskError: The system refused; ``path`` is as it was.
    """
    refuse_inside_artefact(path)
    partial = partial_path(path)
    with disk_errors("write", path):
        make_folder(path.parent)
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666), "w+b") as file:
            _claim(file.fileno(), partial, path)
            try:
                file.truncate(0)
                yield file
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
                # Without this, a power cut could lose the rename while a manifest written later survives.
                fsync_path(path.parent)
            except BaseException:
                with suppress(OSError):  # the first error is the one to report
                    partial.unlink(missing_ok=True)
                raise


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` by a file with exactly ``content``, atomically."""
    with atomic_file(path) as file:
        file.write(content)


@contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a new folder that takes the name ``path`` when the block ends well, and vanishes when it does not.

    What a killed run left under the temporary name is removed first.

    Args:
        overwrite: Replace an existing ``path``; otherwise its existence is an error.

    Raises:
        DiskError: ``path`` exists, or the system refused; ``path`` is as it was.
    """
    _refuse_existing(path, overwrite=overwrite)
    partial = partial_path(path)
    if partial.is_symlink() or partial.is_file():
        remove_path(partial)
    with claimed_folder(partial, name=path), disk_errors("write", path):
        try:
            _refuse_existing(path, overwrite=overwrite)  # another process may have written it meanwhile
            for left in partial.iterdir():
                remove_path(left)
            yield partial
            _fsync_tree(partial)
            if path.exists():
                _replace_folder(partial, path)
            else:
                partial.rename(path)
            fsync_path(path.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise DiskError(f"{path} exists; choose another name, or pass --overwrite to replace it")


@contextmanager
def claimed_folder(path: Path, *, name: Path | None = None) -> Iterator[int]:
    """Make this process the only writer of the folder ``path`` while the block runs; create the folder if needed.

    The system drops the claim with the process, so a killed one leaves no lock to remove. Folders that were created for
    the claim and are still empty when the block ends are removed.

    Args:
        name: What a refusal names instead, where ``path`` is a temporary name.

    Yields:
        A file descriptor; a process that inherits it shares the claim, which lasts until both are gone.

    Raises:
        DiskError: Another process holds the claim, or the system refused.
    """
    refuse_inside_artefact(name or path, itself=name is None)
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with disk_errors("write", name or path):
            make_folder(path)
        with _locked_folder(path, name or path) as claim:
            yield claim
    finally:
        for folder in new:
            with suppress(OSError):  # it holds something, or went already
                folder.rmdir()


def is_claimed(path: Path) -> bool:
    """Whether some process is writing the folder ``path`` now, under :func:`claimed_folder`."""
    with disk_errors("read", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)  # where there are no locks, nobody holds one
    finally:
        os.close(fd)
    return False


@contextmanager
def _locked_folder(path: Path, name: Path) -> Iterator[int]:
    with disk_errors("write", name):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _claim(fd, path, name)
        yield fd
    finally:
        os.close(fd)


def refuse_inside_artefact(path: Path, *, itself: bool = False) -> None:
    """Check that ``path`` does not lie inside an artefact.

    A file that the artefact's manifest does not name would make it count as damaged.

    Args:
        itself: ``path`` is a folder that may be no artefact either.

    Raises:
        DiskError: It does.
    """
    with disk_errors("write", path):
        for folder in (*([path] if itself else []), *path.absolute().parents):
            manifest = folder / "manifest.json"
            if manifest.is_file() and b'"format":"graphsys.' in manifest.read_bytes():
                raise DiskError(
                    f"nothing may be written to {path}: {folder} is an artefact; choose a path outside of it"
                )


def _claim(fd: int, path: Path, name: Path) -> None:
    """Lock the open file or folder ``path`` until ``fd`` is closed."""
    busy = f"another process is writing {name}; wait until it is done or stop it, then run the same command again"
    try:
        _lock(fd)
    except BlockingIOError as error:
        raise DiskError(busy) from error
    except OSError as error:
        # Some network file systems have no locks; there, as before, keeping writers apart is up to the user.
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EINVAL):
            raise
    # Its former holder may have renamed or removed it between the opening and the locking.
    if not path.exists() or not os.path.samestat(os.fstat(fd), path.stat()):
        raise DiskError(busy)


def _lock(fd: int) -> None:
    deadline = time.monotonic() + _CLAIM_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_CLAIM_WAIT_S / 50)
        else:
            return


def _replace_folder(new: Path, old: Path) -> None:
    """Give ``new`` the name ``old`` and remove what had it; at every moment one of the two has that name."""
    # A folder cannot be renamed over a full one. The old one is locked, because it gets the temporary name: another
    # writer must not take it for its own while it is being removed.
    with _locked_folder(old, old):
        if _exchange(new, old):
            fsync_path(old.parent)
            remove_path(new)
            return
    # Some network file systems cannot. Between these two calls the old artefact has another name; a run killed there
    # finds none the next time, and builds it again.
    retired = old.with_name(f".{old.name}.retired")
    remove_path(retired)
    old.rename(retired)
    new.rename(old)
    remove_path(retired)


def _exchange(a: Path, b: Path) -> bool:
    """Let two paths trade their names in one step; False where the system or the file system cannot."""
    call = getattr(ctypes.CDLL(None), "renameat2", None)  # Python has no name for it
    return call is not None and call(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0


def _fsync_tree(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in names:
            fsync_path(Path(root) / name)
        fsync_path(Path(root))


def folder_bytes(path: Path) -> int:
    """Return the bytes of all files below ``path``."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


class SequentialWriter:
    """Writes a file from front to back and keeps the page cache clean behind itself.

    Dirty pages count against a memory cgroup, and version 1 groups do not throttle their writers: without the
    regular flush a fast producer is killed although its own buffers are small.
    """

    def __init__(self, path: Path, *, flush_bytes: int = 64 << 20) -> None:
        self.path = path
        self.nbytes = 0
        self._flush_bytes = flush_bytes
        self._flushed = 0
        with disk_errors("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb", buffering=1 << 20)

    def write(self, content: Any) -> None:
        """Append the bytes of ``content`` (bytes, or a C-contiguous array)."""
        view = memoryview(content).cast("B") if not isinstance(content, bytes) else memoryview(content)
        with disk_errors("write", self.path):
            self._file.write(view)
            self.nbytes += view.nbytes
            if self.nbytes - self._flushed >= self._flush_bytes:
                self._clean()

    def _clean(self) -> None:
        self._file.flush()
        drop_cache(self._file.fileno())
        self._flushed = self.nbytes

    def close(self) -> None:
        """Flush to the device and close."""
        with disk_errors("write", self.path):
            self._clean()
            self._file.close()

    def abort(self) -> None:
        """Close without care for the content."""
        # On a full disk even the last buffer cannot be written; the file is thrown away in any case.
        with suppress(OSError):
            self._file.close()


def drop_cache(fd: int) -> None:
    """Write a file's dirty pages out and let its page cache go."""
    os.fdatasync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
