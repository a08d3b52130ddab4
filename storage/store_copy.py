"""A machine's own copy of a store, for workers that had better not read it where it lies."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphsys.core.errors import ArtefactError, CorruptError, DiskError
from graphsys.core.progress import SILENT, Progress, Task, task
from graphsys.storage.files import SequentialWriter, atomic_folder, disk_errors, folder_bytes, make_folder
from graphsys.storage.sequential import FULL_SPEED_BYTES
from graphsys.storage.store import Store
from graphsys.storage.store_check import StoreCheck, check_store

_BLOCK_BYTES = 8 << 20
_POLL_S = 0.1


def local_copy(
    path: Path,
    cache: Path,
    *,
    limit_s: float,
    memory: int = FULL_SPEED_BYTES,
    progress: Progress = SILENT,
) -> Path:
    """Return a copy of the store ``path`` below ``cache`` whose arrays are as they were written.

    The first process of a machine that asks makes it, the others wait; it appears whole or not at all. It is named by
    the store's fingerprint, so that it serves every run on that store. All its arrays are compared with their
    checksums once per version of their files; a damaged copy is made again.

    Args:
        cache: Folder of this machine; made when missing.
        limit_s: Longest wait for another process that makes the copy.
        memory: Bytes that buffers may take.

    Raises:
        ArtefactError: ``path`` holds no store.
        CorruptError: Its arrays are not as they were written.
        DiskError: The system refused, or another process took longer than ``limit_s``.

    Cost:
        The first time, one read and one write of the store, and one read of the copy; then one stat per array.
    """
    source = Store.open(path)
    name = f"{path.stem}-{source.fingerprint}"
    target, record = cache / f"{name}.gs", cache / f".{name}.checked.json"
    with disk_errors("write", cache):
        make_folder(cache)
    with _turn(cache / f".{name}.lock", target, limit_s):
        if not _is_whole(target, source, record, memory, progress):
            _copy(source, target, memory, progress).remember(record)
    return target


def _is_whole(target: Path, source: Store, record: Path, memory: int, progress: Progress) -> bool:
    if not target.is_dir():
        return False
    try:
        copy = Store.open(target)
        if copy.fingerprint == source.fingerprint:
            check_store(copy, copy.manifest.arrays, record=record, memory=memory).remember(record)
            return True
    except ArtefactError as error:
        progress.message(f"{error}; copying {source.path} again")
    return False


def _copy(source: Store, target: Path, memory: int, progress: Progress) -> StoreCheck:
    """Make ``target``; return the check of its arrays."""
    with (
        task(progress, f"copying {source.path.name} to {target.parent}", folder_bytes(source.path), "B") as work,
        atomic_folder(target, overwrite=True) as partial,
    ):
        for file in sorted(file for file in source.path.rglob("*") if file.is_file()):
            _copy_file(file, partial / file.relative_to(source.path), work)
        try:
            copy = Store.open(partial)
            return check_store(copy, copy.manifest.arrays, record=partial / "none", memory=memory)
        except CorruptError as error:
            raise CorruptError(
                f"the copy of {source.path} in {target.parent} is not what was written ({error}); run `graphsys verify "
                f"{source.path}`, and import it again if that finds a difference"
            ) from error


def _copy_file(source: Path, target: Path, work: Task) -> None:
    writer = SequentialWriter(target)
    with disk_errors("read", source), source.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK_BYTES):
            writer.write(block)
            work.advance(len(block))
    writer.close()


@contextmanager
def _turn(lock: Path, target: Path, limit_s: float) -> Iterator[None]:
    """Hold a machine-wide lock while the block runs; the system drops it with the process."""
    with disk_errors("write", lock):
        file = lock.open("a")
    with file:
        deadline = time.monotonic() + limit_s
        while not _locked(file.fileno()):
            if time.monotonic() > deadline:
                raise DiskError(
                    f"another process has been making {target} for {limit_s:.0f} s; raise cluster.timeout, or leave "
                    f"cluster.store_cache out to read the store in place"
                )
            time.sleep(_POLL_S)
        yield


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
