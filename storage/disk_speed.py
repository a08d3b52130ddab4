"""How fast the disk below a folder reads and writes past the page cache; measured once in a while, then remembered."""

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from io import FileIO
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from graphsys.core.errors import CorruptError, DiskError
from graphsys.core.units import MIB
from graphsys.storage.direct import PAGE, Bytes, DirectFile, aligned_empty
from graphsys.storage.files import disk_errors, drop_cache, write_bytes
from graphsys.storage.manifest import open_sealed_json, sealed_json

FILE_BYTES = 128 * MIB
MAX_AGE = timedelta(days=30)
_FREE_SHARE = 8  # of the free space, as a divisor: the most that the test file takes
_BLOCK_BYTES = 4 * MIB
_RANDOM_READS = 4096
_READERS = 32  # reads in flight, as a gather keeps them
_ROUNDS = 3  # other work on a shared machine makes a single one any length


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpeed:
    """Speeds of one device."""

    read_bytes_s: float  # sequential direct reads, bytes per second
    write_bytes_s: float  # sequential writes up to the device
    random_reads_s: float  # reads of 4 KiB at random places, several in flight, per second
    measured: str  # date, as 2026-01-31

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def disk_speed(folder: Path) -> DiskSpeed:
    """Return the speeds of the device that holds ``folder``, or will: its nearest existing parent counts.

    A figure not older than 30 days is taken from the user's cache folder; otherwise a file of at most 128 MiB is
    written, read and removed.

    Raises:
        DiskError: The folder cannot be written, or the disk is full.
    """
    place = existing_folder(folder)
    with disk_errors("read", place):
        device = place.stat().st_dev
    remembered = cache_file("disk", device)
    known = _recall(remembered)
    if known is not None:
        return known
    speed = measure_disk(place)
    with suppress(DiskError):  # a cache that cannot be written costs the next plan a second, not this one its answer
        write_bytes(remembered, sealed_json(speed.as_dict()))
    return speed


def measure_disk(folder: Path, *, nbytes: int | None = None, random_reads_s: float | None = None) -> DiskSpeed:
    """Measure the device of an existing ``folder`` with a file that is gone afterwards.

    Args:
        nbytes: of the file, at most; None: 128 MiB.
        random_reads_s: where that is known; None measures it.

    Raises:
        DiskError: The folder cannot be written, or the disk is full.
    """
    path = folder / f".graphsys-disk-speed-{os.getpid()}"
    with disk_errors("write", path):
        free = shutil.disk_usage(folder).free
        num_blocks = max(1, min(FILE_BYTES if nbytes is None else nbytes, free // _FREE_SHARE) // _BLOCK_BYTES)
        with path.open("wb", buffering=0) as written:
            path.unlink()  # a call that is killed leaves nothing
            write_s = median(_time_writes(written, num_blocks) for _ in range(_ROUNDS))
            with DirectFile(Path(f"/proc/self/fd/{written.fileno()}")) as file:
                read_s = median(_time_reads(file, num_blocks) for _ in range(_ROUNDS))
                if random_reads_s is None:
                    random_reads_s = _RANDOM_READS / median(_time_random_reads(file) for _ in range(_ROUNDS))
    moved = num_blocks * _BLOCK_BYTES
    return DiskSpeed(
        read_bytes_s=moved / read_s,
        write_bytes_s=moved / write_s,
        random_reads_s=random_reads_s,
        measured=_today().isoformat(),
    )


def _time_writes(file: FileIO, num_blocks: int) -> float:
    # Random bytes, and other ones in every block: some devices compress, or store equal blocks once.
    block = np.random.default_rng(0).integers(0, 256, _BLOCK_BYTES, np.uint8)
    file.seek(0)
    started = time.perf_counter()
    for index in range(num_blocks):
        block[::PAGE] = index % 256
        file.write(block.data)
    drop_cache(file.fileno())
    return time.perf_counter() - started


def _time_reads(file: DirectFile, num_blocks: int) -> float:
    buffer = aligned_empty(_BLOCK_BYTES)
    started = time.perf_counter()
    for index in range(num_blocks):
        file.read_into(index * _BLOCK_BYTES, buffer)
    return time.perf_counter() - started


def _time_random_reads(file: DirectFile) -> float:
    pages = np.random.default_rng(1).integers(0, file.nbytes // PAGE, (_READERS, _RANDOM_READS // _READERS))

    def read_all(places: Any, buffer: Bytes) -> None:
        for place in places:
            file.read_into(int(place) * PAGE, buffer)

    with ThreadPoolExecutor(_READERS, thread_name_prefix="graphsys-disk-speed") as pool:
        buffers = [aligned_empty(PAGE) for _ in pages]
        started = time.perf_counter()
        list(pool.map(read_all, pages, buffers))
        return time.perf_counter() - started


def existing_folder(folder: Path) -> Path:
    """Return ``folder``, or its nearest parent that exists."""
    folder = folder.absolute()
    return next((place for place in (folder, *folder.parents) if place.is_dir()), Path("/"))


def cache_file(what: str, device: int) -> Path:
    """Return where a measurement of ``what`` on a device, by its number, is remembered for this user."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "graphsys" / f"{what}-{device}.json"


def _recall(path: Path) -> DiskSpeed | None:
    if not path.is_file():
        return None
    try:
        speed = DiskSpeed(**open_sealed_json(path))
    except (CorruptError, DiskError, TypeError):  # only a cache: what cannot be read is measured again
        return None
    return speed if _today() - date.fromisoformat(speed.measured) <= MAX_AGE else None


def _today() -> date:
    return datetime.now(UTC).date()
