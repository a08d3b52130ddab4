"""The batches of training or of validation; what making and reading them takes: bytes from counts, seconds from bytes.

The formulas follow what the stages do; the speeds were measured here.
"""

import math
from dataclasses import dataclass

from graphsys.samplers.offline import NARROW_IDS
from graphsys.samplers.schedule import Schedule
from graphsys.storage.disk_speed import DiskSpeed
from graphsys.storage.features import GATHER_EXTENT, GATHER_GAP, SCAN_GAP
from graphsys.trainers.engine_speed import EngineSpeed
from graphsys.trainers.pilot import Pilot
from graphsys.trainers.plan import PackPlan
from graphsys.trainers.rehearsal import Sampling

START_NBYTES = 8  # of a node in indptr
_INSERTED = 0.5  # of the fetched rows, those that enter the cache, about
_PAGE = 4096
_HEAD = 256  # of a batch
_FRAME = 2 * _PAGE  # of a window: its header and its index


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What rows are read from, and how fast: all that is known before anything is rehearsed."""

    num_nodes: int
    dim: int
    disk: DiskSpeed
    engine: EngineSpeed

    @property
    def feature_bytes(self) -> int:
        """Bytes of all features."""
        return self.num_nodes * self.dim * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work(Ground):
    """What there is to do: sizes of the graph and of one batch, and how fast the machine is."""

    pilot: Pilot
    val_pilot: Pilot | None
    schedule: Schedule
    val_schedule: Schedule | None
    num_edges: int
    topology_bytes: int
    layer_dims: tuple[int, ...]  # output columns of each layer
    width: int  # columns of the widest tensor inside a layer
    needs_degree: bool  # whether layers need the degrees of sources
    memory: int
    validations: int  # passes over the validation nodes
    step_s: float  # one training step with nothing beside it
    forward_s: float  # one forward pass of the same batch
    sampling: Sampling
    forward_edges: int  # edges that pass runs over, all layers together
    sample_threads: int
    touch_byte_s: float  # seconds of a byte of memory that is touched for the first time
    cores: int
    workers: int = 1  # that share this machine, whose cores and speeds above are those of one of them

    @property
    def index_nbytes(self) -> int:
        """Bytes of a source id in the store."""
        return (self.topology_bytes - START_NBYTES * (self.num_nodes + 1)) // max(self.num_edges, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The batches of training or of validation. Counts are fractions: an epoch's last batch may be short."""

    work: Ground
    pilot: Pilot
    plan: PackPlan
    schedule: Schedule
    passes: int  # over one epoch's batches
    starts: int  # how often they are opened

    @property
    def per_epoch(self) -> float:
        """Batches of one epoch."""
        return self.schedule.mean_batches_per_epoch

    @property
    def made(self) -> float:
        """Batches that are sampled."""
        return self.per_epoch * self.schedule.num_batches / max(self.schedule.batches_per_epoch, 1)

    @property
    def read(self) -> float:
        """Batches that are read."""
        return self.per_epoch * self.passes

    @property
    def alone(self) -> float:
        """Share of the batches that are made before training starts."""
        if self.schedule.samples == "frozen":
            return 1.0
        return min(self.plan.window_batches / max(self.schedule.num_batches, 1), 1.0)

    @property
    def sample_bytes(self) -> float:
        """Bytes of a sampled batch on disk: ids, starts, edges, labels, header and what fills the last page."""
        return self.id_bytes + 8 * self.schedule.batch_size + _HEAD + _PAGE / 2

    @property
    def id_nbytes(self) -> int:
        """Bytes of a global id in a window."""
        return 4 if self.work.num_nodes <= NARROW_IDS else 8

    @property
    def id_bytes(self) -> float:
        """Bytes of a batch's ids, starts and edges."""
        ids = self.id_nbytes * self.pilot.mean_nodes
        return ids + 4 * self.pilot.mean_expanded + 4 * self.pilot.mean_edges

    @property
    def fetched(self) -> float:
        """Rows of a batch that come from the disk."""
        if self.plan.mode == "memory":
            return 0.0
        if self.plan.mode == "direct":
            return self.pilot.mean_nodes
        return self._rows(warm=self.schedule.samples == "frozen") / max(self.schedule.num_batches, 1)

    @property
    def loaded(self) -> float:
        """Rows that are read into the cache when the batches are opened: frozen samples start with a full one."""
        if self.schedule.samples == "fresh" or self.plan.mode not in ("packed", "cached"):
            return 0.0
        # A pilot's estimates may differ by more than what there is room for.
        return min(max(self._rows(warm=False) - self._rows(warm=True), 0.0), self.plan.num_slots)

    def _rows(self, *, warm: bool) -> float:
        batches, plan = max(self.schedule.num_batches, 1), self.plan
        return self.pilot.fetched_rows(plan.num_slots, window=plan.window_batches, num_batches=batches, warm=warm)

    @property
    def window_bytes(self) -> float:
        """Bytes of a batch in the window that training reads, feature rows left out."""
        if self.plan.mode not in ("packed", "cached"):
            return self.sample_bytes
        return self.sample_bytes + 4 * self.pilot.mean_nodes + (self.id_nbytes + 8 * _INSERTED) * self.fetched

    @property
    def batch_bytes(self) -> float:
        """Bytes of a batch in that window, feature rows included."""
        if self.plan.mode != "packed":
            return self.window_bytes
        return self.window_bytes + self.fetched * self.plan.row_nbytes + _PAGE / 2  # rows start on a page of their own

    @property
    def sample_written(self) -> float:
        """Bytes of all windows of samples."""
        return self.made * self.sample_bytes + _FRAME * self.num_windows

    @property
    def pack_read(self) -> float:
        """Bytes that packing reads in all: samples, and one scan of the features per window."""
        # Packing reads the ids first, and then the batches; beside training only the second pass is counted.
        read = self.sample_written + self.alone * self.made * (self.id_nbytes * self.pilot.mean_nodes + _PAGE)
        if self.plan.mode == "packed":
            rows = self.made * self.fetched + self.loaded
            read += self.num_windows * _scan_bytes(self.work, rows / self.num_windows)
        return read

    @property
    def pack_written(self) -> float:
        """Bytes of all packed windows; each names what the cache holds before and after."""
        rows = self.loaded * self.plan.row_nbytes if self.plan.mode == "packed" else 0.0
        return self.made * self.batch_bytes + rows + (_FRAME + 16 * self.plan.num_slots) * self.num_windows

    def sample_s(self, work: Work) -> float:
        """Return the seconds of sampling everything with nothing beside it."""
        return self.made * self.batch_s(work)

    def batch_s(self, work: Work) -> float:
        """Return the seconds of sampling a batch with nothing beside it; those of ``work`` are batches of training."""
        return work.sampling.batch_s * self.pilot.mean_edges / max(work.pilot.mean_edges, 1)

    @property
    def looked_ahead(self) -> int:
        """Batches that are sampled once more, for the cache plans of the windows before theirs."""
        return sum(self.looked_ahead_of(index) for index in range(self.num_windows))

    def looked_ahead_of(self, index: int) -> int:
        """Return those of one window."""
        if self.plan.mode not in ("packed", "cached"):
            return 0
        left = self.schedule.num_batches - (index + 1) * self.plan.window_batches
        return max(min(self.plan.look_ahead, left), 0)

    @property
    def num_windows(self) -> int:
        """Windows that are made."""
        return self.schedule.num_windows(self.plan.window_batches)

    def share_of(self, index: int) -> float:
        """Return the share of the sampled batches that a window has."""
        return len(self.schedule.window(index, self.plan.window_batches)) / max(self.schedule.num_batches, 1)

    @property
    def pack_s(self) -> float:
        """Seconds of planning and moving rows with nothing beside it."""
        if self.plan.mode not in ("packed", "cached"):
            return 0.0
        moved = (self.pack_read + self.pack_written) / self.work.engine.pack_bytes_s
        return self.made * self.pilot.mean_nodes * self.work.engine.plan_access_s + moved

    @property
    def step_bytes(self) -> float:
        """Bytes that are read for a batch."""
        return self.batch_bytes + _row_reads(self.work, self.plan, self.fetched)[0]

    @property
    def rows_s(self) -> float:
        """Seconds that the disk takes to pack everything and to read it with nothing else to do: sampling left out."""
        disk = self.work.disk
        nbytes, requests = _row_reads(self.work, self.plan, self.fetched)
        batch_s = self.batch_bytes / disk.read_bytes_s + max(nbytes / disk.read_bytes_s, requests / disk.random_reads_s)
        return self.pack_s + self.starts * self.start_bytes / disk.read_bytes_s + self.read * batch_s

    @property
    def start_bytes(self) -> float:
        """Bytes that are read whenever the batches are opened."""
        if self.plan.mode == "packed":
            return self.loaded * self.plan.row_nbytes
        return _scan_bytes(self.work, self.loaded) if self.loaded else 0.0


def _row_reads(work: Ground, plan: PackPlan, rows: float) -> tuple[float, float]:
    """Bytes and requests that the rows of one batch take from the store, beside its window."""
    if plan.mode == "packed" or rows < 1:
        return 0.0, 0
    row = work.dim * 4
    wanted = min(rows / work.num_nodes, 1 - 1e-9)
    # Between two wanted rows lie k others with chance wanted * other^k; up to ``reach`` of them are read over.
    other, reach = 1 - wanted, GATHER_GAP // row
    over = other * (1 - reach * other ** (reach - 1) + (reach - 1) * other**reach) / wanted if reach else 0.0
    nbytes = rows * row * (1 + max(over, 0.0))
    requests = max(rows * other**reach, nbytes / GATHER_EXTENT)
    return min(nbytes + requests * _PAGE, work.feature_bytes + requests * _PAGE), requests


def _scan_bytes(work: Ground, rows: float) -> int:
    """Bytes that a scan reads to meet ``rows`` accesses, some of them to the same node."""
    distinct = work.num_nodes * -math.expm1(-rows / work.num_nodes)
    return int(min(work.feature_bytes, distinct * (work.dim * 4 + SCAN_GAP)))
