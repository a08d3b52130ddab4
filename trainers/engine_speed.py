"""How fast packing goes on this machine and disk: a small window, really planned and packed.

A plan packs rows of the run's store. To choose a mode, rows of a usual shape are enough, and the result is remembered.
"""

import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import graphsys
from graphsys.core.errors import CorruptError, DiskError
from graphsys.core.units import MIB
from graphsys.storage.disk_speed import cache_file, existing_folder
from graphsys.storage.files import disk_errors, write_bytes
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.manifest import open_sealed_json, sealed_json
from graphsys.trainers.drawn_packing import DrawnPacking, has_room
from graphsys.trainers.scratch import scratch_folder

MAX_AGE = timedelta(days=7)
_ROUNDS = 3  # other work on a shared machine makes a single one any length
_LEAST_S, _MOST_S = 0.5, 4  # of them, where a round is short or long
_MEMORY = 256 * MIB  # enough for a window of the rows below
_ROWS, _DIM = 150_000, 128  # where no store is at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpeed:
    """Speeds of one machine and device, of this version of graphsys and one shape of rows."""

    plan_access_s: float  # to plan one access of a window
    pack_bytes_s: float  # bytes read and written per second while a planned window is packed
    byte_s: float  # seconds per byte of planning and packing together, in the window that was measured
    version: str
    measured: str  # date, as 2026-01-31

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


# Of two cores and a disk of 1.5 GB/s; for a disk too full to measure on.
ASSUMED = EngineSpeed(
    plan_access_s=2.5e-7, pack_bytes_s=8e8, byte_s=1.5e-9, version=graphsys.__version__, measured="never"
)


def engine_speed(folder: Path) -> EngineSpeed:
    """Return the speeds on the device that holds ``folder``, or will; measured at most once a week.

    A device with less than 64 MiB left is not measured.

    Raises:
        DiskError: The folder's nearest existing parent cannot be written, or the disk is full.
    """
    place = existing_folder(folder)
    with disk_errors("read", place):
        remembered = cache_file("engine", place.stat().st_dev)
    known = _recall(remembered)
    if known is not None:
        return known
    if not has_room(place):
        return ASSUMED
    with scratch_folder(place) as work:
        rows = np.random.default_rng(0).random((_ROWS, _DIM), np.float32)
        features = FlatArray(work / "x", write_array(work / "x", rows))
        speed = _measure(work, features, codec="float32", with_rows=True, memory=_MEMORY)
    with suppress(DiskError):
        write_bytes(remembered, sealed_json(speed.as_dict()))
    return speed


def measure_engine(folder: Path, features: FlatArray, *, codec: str, with_rows: bool, memory: int) -> EngineSpeed:
    """Pack a window of drawn batches below an existing ``folder``, in files that are gone afterwards.

    A device with less than 64 MiB left is not measured: usual speeds are assumed.

    Args:
        features, codec, with_rows, memory: As of :class:`graphsys.trainers.drawn_packing.DrawnPacking`.

    Raises:
        MemoryBudgetError, InputError, CorruptError, DiskError: As
            :meth:`graphsys.trainers.drawn_packing.DrawnPacking.pack`.
    """
    if not has_room(folder):
        return ASSUMED
    with scratch_folder(folder) as work:
        return _measure(work, features, codec=codec, with_rows=with_rows, memory=memory)


def _measure(folder: Path, features: FlatArray, *, codec: str, with_rows: bool, memory: int) -> EngineSpeed:
    packing = DrawnPacking(folder, features, codec=codec, with_rows=with_rows, memory=memory)
    packing.pack()  # compiles what is not compiled yet
    packing.tidy()
    plan_s: list[float] = []
    pack_s: list[float] = []
    while not pack_s or (sum(pack_s) < _MOST_S and (len(pack_s) < _ROUNDS or sum(pack_s) < _LEAST_S)):
        started = time.perf_counter()
        accesses = packing.plan()
        planned = time.perf_counter()
        nbytes = packing.pack()
        plan_s.append(planned - started)
        pack_s.append(time.perf_counter() - planned)  # planning included
        packing.tidy()
    moved_s = max(median(pack_s) - median(plan_s), 1e-3)
    return EngineSpeed(
        plan_access_s=median(plan_s) / accesses,
        pack_bytes_s=nbytes / moved_s,
        byte_s=median(pack_s) / nbytes,
        version=graphsys.__version__,
        measured=_today().isoformat(),
    )


def _recall(path: Path) -> EngineSpeed | None:
    if not path.is_file():
        return None
    try:
        speed = EngineSpeed(**open_sealed_json(path))
        recent = _today() - date.fromisoformat(speed.measured) <= MAX_AGE
    except (CorruptError, DiskError, TypeError, ValueError):
        return None
    return speed if recent and speed.version == graphsys.__version__ else None


def _today() -> date:
    return datetime.now(UTC).date()
