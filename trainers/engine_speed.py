"""How fast packing goes on this machine and disk: a small window, really planned and packed.

A plan packs rows of the run's own shape. To choose a mode, one of a standard shape is enough, which is remembered.
"""

import shutil
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import graphsys
from graphsys.core.errors import CorruptError, DiskError
from graphsys.core.types import NodeIds, SampledBatch
from graphsys.core.units import MIB
from graphsys.storage.disk_speed import cache_file, existing_folder
from graphsys.storage.files import disk_errors, write_bytes
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.manifest import open_sealed_json, sealed_json
from graphsys.storage.packer import pack_window
from graphsys.storage.residency import plan_residency
from graphsys.storage.window import Window, WindowHeader, WindowWriter
from graphsys.trainers.scratch import scratch_folder

MAX_AGE = timedelta(days=7)
ROWS_NBYTES = 80_000_000  # most of the rows that are scanned
MOST_NODES = 300_000
_DIM = 128
_BATCHES = 16
_ROUNDS = 3  # other work on a shared machine makes a single one any length
_SHARE = 8  # of the nodes, as a divisor, that a batch holds
_COPIES = 3  # of a row on the disk, those in the window included
_NODE_NBYTES = 96  # of disk space beside them: ids, starts, edges, padding
_MEMORY = 256 * MIB  # enough for the window
_LEAST_MEMORY = 4 * MIB  # for buffers
_PLAN_NBYTES = 128  # of memory per node, of which planning takes about half
_FREE_SHARE = 8  # of the free space, as a divisor: the most that the files take
_LEAST_FREE = 64 * MIB  # with less, the run needs the space itself, and speeds are assumed


@dataclass(frozen=True, slots=True, kw_only=True)
class PackShape:
    """What is packed."""

    num_nodes: int  # at most; fewer where their rows are more than enough to measure on
    dim: int
    codec: str
    with_rows: bool  # whether rows go into the window, or only the plan of the cache


_STANDARD = PackShape(num_nodes=MOST_NODES, dim=_DIM, codec="float32", with_rows=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpeed:
    """Speeds of one machine and device, of this version of graphsys and one shape of rows."""

    plan_access_s: float  # to plan one access of a window
    pack_bytes_s: float  # bytes read and written per second while a planned window is packed
    version: str
    measured: str  # date, as 2026-01-31

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


# Of two cores and a disk of 1.5 GB/s; for a disk too full to measure on.
ASSUMED = EngineSpeed(plan_access_s=2.5e-7, pack_bytes_s=8e8, version=graphsys.__version__, measured="never")


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
    speed = measure_engine(place)
    if speed is ASSUMED:
        return speed
    with suppress(DiskError):
        write_bytes(remembered, sealed_json(speed.as_dict()))
    return speed


def measure_engine(folder: Path, shape: PackShape = _STANDARD, *, memory: int = _MEMORY) -> EngineSpeed:
    """Pack a window of drawn batches below an existing ``folder``, in files that are gone afterwards.

    A device with less than 64 MiB left is not measured: usual speeds are assumed.

    Args:
        shape: of the rows.
        memory: bytes that packing may take.

    Raises:
        MemoryBudgetError: ``memory`` holds no window.
        DiskError: The folder cannot be written, or the disk is full.
    """
    with disk_errors("read", folder):
        free = shutil.disk_usage(folder).free
    if free < _LEAST_FREE:
        return ASSUMED
    row = 4 * shape.dim
    num_nodes = min(
        shape.num_nodes,
        MOST_NODES,
        min(ROWS_NBYTES, memory // 2) // row,
        free // _FREE_SHARE // (_COPIES * row + _NODE_NBYTES),
        (memory - _LEAST_MEMORY) // _PLAN_NBYTES,
    )
    with scratch_folder(folder) as work:
        return _measure(work, replace(shape, num_nodes=max(num_nodes, _SHARE)), memory)


def _measure(work: Path, shape: PackShape, memory: int) -> EngineSpeed:
    num_nodes = shape.num_nodes
    rng = np.random.default_rng(0)
    # Squared draws: few nodes are met often and many seldom, as in graphs.
    trace = [np.unique((num_nodes * rng.random(num_nodes // _SHARE) ** 2).astype(np.int64)) for _ in range(_BATCHES)]
    rows = rng.random((num_nodes, shape.dim), np.float32)
    features = FlatArray(work / "x", write_array(work / "x", rows))
    del rows
    _write_samples(work / "trace.sample", trace)
    slots = np.full(num_nodes // 10, -1, np.int64)
    _pack(work, features, slots, shape, memory)  # compiles what is not compiled yet
    plan_s, pack_s = [], []
    for _ in range(_ROUNDS):
        started = time.perf_counter()
        plan_residency(trace, slots.shape[0], slots)
        planned = time.perf_counter()
        nbytes = _pack(work, features, slots, shape, memory)
        plan_s.append(planned - started)
        pack_s.append(time.perf_counter() - planned - plan_s[-1])
    return EngineSpeed(
        plan_access_s=median(plan_s) / sum(map(len, trace)),
        pack_bytes_s=nbytes / max(median(pack_s), 1e-3),
        version=graphsys.__version__,
        measured=_today().isoformat(),
    )


def _pack(work: Path, features: FlatArray, slots: NodeIds, shape: PackShape, memory: int) -> int:
    """Pack the window; return the bytes read and written."""
    out = work / "trace.pack"
    count = pack_window(
        work / "trace.sample", out, features,
        num_slots=slots.shape[0], initial_slots=slots, codec=shape.codec, with_rows=shape.with_rows,
        memory=memory, fingerprint="",
    )  # fmt: skip
    nbytes = count.read_bytes + (work / "trace.sample").stat().st_size + out.stat().st_size
    out.unlink()
    return nbytes


def _write_samples(path: Path, trace: list[NodeIds]) -> None:
    header = WindowHeader(window_index=0, first_position=0, num_batches=len(trace), num_hops=1, fingerprint="")
    with WindowWriter(path, header=header) as writer:
        for index, node in enumerate(trace):
            writer.add(_star(index, node), y=None)
        writer.close()
    Window.open(path, None)


def _star(batch_id: int, node: NodeIds) -> SampledBatch:
    """Return a batch in which all other nodes are in-neighbours of the first."""
    others = node.shape[0] - 1
    return SampledBatch(
        epoch=0,
        batch_id=batch_id,
        node=node,
        indptr=np.array([0, others], np.int32),
        indices=np.arange(1, others + 1, dtype=np.int32),
        num_sampled_nodes=(1, others),
        num_sampled_edges=(others,),
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
