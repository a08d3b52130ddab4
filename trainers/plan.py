"""How large the windows of a run in a given mode are and how many rows it keeps in memory.

Every choice follows from the run's config, the store and a few sampled batches, never from the free memory or the speed
of the machine, so that a rerun finds the same windows. Which mode that is, ``choice.py`` says.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, MemoryBudgetError
from graphsys.core.types import Topology
from graphsys.core.units import MIB, format_bytes
from graphsys.samplers.expansion import BYTES_PER_EDGE
from graphsys.samplers.schedule import Schedule
from graphsys.storage.codec import row_nbytes
from graphsys.storage.packer import pack_nbytes
from graphsys.storage.store import Store
from graphsys.trainers.pilot import Pilot, run_pilot

Mode = Literal["packed", "cached", "direct", "memory"]

MAX_WINDOW_BATCHES = 1000  # Ginex plans about as many at once; the gain of more is small
PLANNING_SHARE = 1 / 3  # of the budget that planning a window may take
READ_AHEAD = 4  # batches read before they are needed, where memory allows
MIN_READ_AHEAD = 2  # one is read while another is assembled
_SAMPLING_MARGIN = 1.5  # over the edges' bytes: dirty pages of the window, read buffers, a batch larger than any before
BOUND_BYTES = 16 * MIB  # most that comparing the rows read with the fewest possible may take
_BOUND_SHARE = 32  # and of the memory budget, as a divisor
_ROWS_MARGIN = 1.1  # over the rows that the pilot foretells
ASSEMBLED = 2  # batches assembled and waiting for the trainer, or in its hands


@dataclass(frozen=True, slots=True, kw_only=True)
class PackPlan:
    """How the batches of one schedule are made and read."""

    mode: Mode
    window_batches: int  # batches per window; the last window may be shorter
    num_windows: int
    num_slots: int  # rows of the host cache; 0 in modes direct and memory
    codec: str
    row_nbytes: int  # bytes of an encoded row, padded to 128
    read_ahead: int  # batches in flight before the trainer
    max_nodes: int  # upper estimate of the distinct nodes of one batch
    max_edges: int
    working_bytes: int  # buffers of the batches in flight and of the model, upper estimate
    producer_bytes: int  # what sampling and packing the next window may allocate meanwhile
    disk_bytes: int  # upper estimate of the disk space that windows occupy at one time
    reason: str  # why this mode, for people
    notes: tuple[str, ...] = ()  # settings that the budget changed, for people
    look_ahead: int = 0  # batches behind a window that its cache plan knows of
    bound_bytes: int = 0  # memory for comparing the rows read with the fewest possible; 0: they are not compared

    @property
    def cache_bytes(self) -> int:
        """Bytes of the host cache."""
        return self.num_slots * self.row_nbytes

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        return {**asdict(self), "notes": list(self.notes)}


def resolve_pack(
    run: RunConfig,
    store: Store,
    schedule: Schedule,
    topology: Topology,
    *,
    memory: int | None = None,
    disk: int | None = None,
    pilot: Pilot | None = None,
) -> PackPlan:
    """Return the plan of a schedule's batches in the run's mode, which is not auto, within memory and disk budgets.

    Args:
        topology: in-edges among the nodes of ``run.task.node_type``.
        memory: bytes that training on this schedule may use; None takes ``run.memory``.
        disk: bytes that its windows may occupy; None takes ``run.pack.disk``.
        pilot: batches sampled already; None samples some.

    Raises:
        MemoryBudgetError: The budget is too small for the mode, or for any; the message says what would do.
        ConfigError: The windows do not fit the disk budget.
    """
    scene = _Scene(
        run=run,
        store=store,
        schedule=schedule,
        pilot=pilot or run_pilot(run, schedule, topology),
        memory=run.memory if memory is None else memory,
        disk=run.pack.disk if disk is None else disk,
    )
    if run.pack.mode == "auto":
        raise ValueError("pack.mode is auto; choose_pack chooses one")
    return scene.plan(run.pack.mode, f"pack.mode is {run.pack.mode}")


def memory_mode_nbytes(run: RunConfig, store: Store, schedule: Schedule, pilot: Pilot) -> int:
    """Return the bytes that a run in mode memory takes: features, topology and the buffers of its batches."""
    scene = _Scene(run=run, store=store, schedule=schedule, pilot=pilot, memory=run.memory, disk=run.pack.disk)
    return scene.memory_mode_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What a choice is made from."""

    run: RunConfig
    store: Store
    schedule: Schedule
    pilot: Pilot
    memory: int
    disk: int

    @property
    def dim(self) -> int:
        return self.store.node_type(self.run.task.node_type).num_features

    @property
    def row(self) -> int:
        return row_nbytes(self.dim, self.run.pack.codec)

    @property
    def memory_mode_bytes(self) -> int:
        info = self.store.node_type(self.run.task.node_type)
        topology = self.store.topology_nbytes(self.store.edge_type_within(info.name))
        return info.num_nodes * self.dim * 4 + topology + self.working_bytes("memory", READ_AHEAD)

    def working_bytes(self, mode: Mode, read_ahead: int) -> int:
        """Bytes of the batches in flight and of one training step, upper estimate."""
        nodes, edges = self.pilot.max_nodes, self.pilot.max_edges
        rows = 0 if mode == "memory" else nodes * self.row
        read = hops_nbytes(nodes, edges) + rows
        assembled = nodes * self.dim * 4 + 16 * edges  # x, and edge_index int64
        return read_ahead * read + ASSEMBLED * assembled + self._step_bytes()

    def bound_bytes(self, mode: Mode, slots: int, free: int) -> int:
        """Bytes for following an epoch's accesses in modes with a cache; making windows comes first."""
        window = 1 if self.run.pack.window == "auto" else min(self.run.pack.window, self.schedule.num_batches)
        left = free - max(self.window_memory(mode, window, slots), int(self.memory * PLANNING_SHARE))
        return max(min(BOUND_BYTES, self.memory // _BOUND_SHARE, left), 0) if slots else 0

    def _step_bytes(self) -> int:
        # Messages of the widest layer, which are weighed or counted in a copy, and what layers keep to go backward.
        nodes, edges, hidden = self.pilot.max_nodes, self.pilot.max_edges, self.run.model.hidden
        return 2 * edges * max(self.dim, hidden) * 4 + 2 * nodes * hidden * 4

    def read_ahead(self, mode: Mode, slots: int) -> int:
        """Batches in flight: as many as leave a third of the memory to making the next window, at least two."""
        free = self.memory * (1 - PLANNING_SHARE) - slots * self.row
        fitting = (count for count in range(READ_AHEAD, MIN_READ_AHEAD, -1) if self.working_bytes(mode, count) <= free)
        return next(fitting, MIN_READ_AHEAD)

    def num_slots(self) -> tuple[int, tuple[str, ...]]:
        """Rows of the host cache; a share of the features gives way to the memory budget, a size does not."""
        info = self.store.node_type(self.run.task.node_type)
        wanted = self.run.pack.host_cache
        if isinstance(wanted, int):
            return min(wanted // self.row, info.num_nodes), ()
        slots = int(info.num_nodes * float(wanted[:-1]) / 100)
        planning = max(int(self.memory * PLANNING_SHARE), self.window_memory("packed", 1, 0))
        free = max(self.memory - planning - self.working_bytes("packed", MIN_READ_AHEAD), 0)
        per_slot = self.row + pack_nbytes(0, 1, 0) - pack_nbytes(0, 0, 0)
        if slots * per_slot <= free:
            return slots, ()
        fitting = free // per_slot
        note = (
            f"host_cache {wanted} is {format_bytes(slots * self.row)}; the memory budget of "
            f"{format_bytes(self.memory)} leaves {format_bytes(fitting * self.row)} for it"
        )
        return fitting, (note,)

    def plan(self, mode: Mode, reason: str) -> PackPlan:
        slots, notes = self.num_slots() if mode in ("packed", "cached") else (0, ())
        read_ahead = self.read_ahead(mode, slots)
        working = self.working_bytes(mode, read_ahead)
        resident = self.memory_mode_bytes if mode == "memory" else working + slots * self.row
        self._check_memory(mode, resident + self.window_memory(mode, 1, slots), slots)
        bound = self.bound_bytes(mode, slots, self.memory - resident)
        free = self.memory - resident - bound
        batches = self.window_batches(mode, slots, free)
        return PackPlan(
            mode=mode,
            window_batches=batches,
            num_windows=-(-self.schedule.num_batches // batches),
            num_slots=slots,
            codec=self.run.pack.codec,
            row_nbytes=self.row,
            read_ahead=read_ahead,
            max_nodes=self.pilot.max_nodes,
            max_edges=self.pilot.max_edges,
            working_bytes=working + bound,
            producer_bytes=free,
            disk_bytes=self.disk_bytes(mode, batches, slots),
            reason=reason,
            notes=notes,
            bound_bytes=bound,
            look_ahead=self.pilot.look_ahead(slots, window=batches),
        )

    def window_memory(self, mode: Mode, batches: int, slots: int) -> int:
        """Bytes that making a window of ``batches`` takes at least."""
        one = hops_nbytes(self.pilot.max_nodes, self.pilot.max_edges)
        sampling = _SAMPLING_MARGIN * BYTES_PER_EDGE * self.pilot.max_edges + one
        if mode in ("direct", "memory"):
            return int(sampling)
        # One batch's surplus over the mean is room enough: in longer windows large and small batches even out.
        ahead = self.pilot.look_ahead(slots, window=batches)
        accesses = int((batches + ahead - 1) * self.pilot.mean_nodes) + self.pilot.max_nodes
        packing = pack_nbytes(accesses, slots, batches + ahead) + 2 * one + 8 * ahead * self.pilot.max_nodes
        return int(max(sampling, packing))

    def window_batches(self, mode: Mode, slots: int, free: int) -> int:
        """Batches per window, within the free memory and the disk budget."""
        total = self.schedule.num_batches
        if self.run.pack.window != "auto":
            batches = min(self.run.pack.window, total)
            needed = self.window_memory(mode, batches, slots)
            if needed > free:
                raise MemoryBudgetError(
                    f"planning a window of {batches} batches takes {format_bytes(needed)}, and the memory budget "
                    f"leaves {format_bytes(free)}; lower pack.window to {self._most(mode, slots, free)}, set it to "
                    f"auto, or raise memory"
                )
            self._check_disk(mode, batches, slots)
            return batches
        budget = min(free, max(int(self.memory * PLANNING_SHARE), self.window_memory(mode, 1, slots)))
        batches = min(self._most(mode, slots, budget), total, MAX_WINDOW_BATCHES)
        if self.schedule.samples == "fresh":
            per_batch = self.disk_bytes(mode, 1, slots)
            batches = max(1, min(batches, self.disk // max(per_batch, 1)))
        self._check_disk(mode, batches, slots)
        return batches

    def _most(self, mode: Mode, slots: int, budget: int) -> int:
        low, high = 1, max(self.schedule.num_batches, 1)
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.window_memory(mode, middle, slots) <= budget
            low, high = (middle, high) if fits else (low, middle - 1)
        return low

    def disk_bytes(self, mode: Mode, batches: int, slots: int) -> int:
        """Bytes on disk at one time: all windows of frozen samples, two of fresh ones."""
        total = self.schedule.num_batches
        kept = total if self.schedule.samples == "frozen" else min(2 * batches, total)
        hops = hops_nbytes(self.pilot.mean_nodes, self.pilot.mean_edges)
        rows = self.packed_rows(kept, batches, slots) * self.row if mode == "packed" else 0
        if self.schedule.samples == "frozen" and mode == "packed":
            rows += slots * self.row  # what the cache starts with
        # While a window is packed, its samples lie beside it.
        return int(kept * hops + rows + (min(batches, total) * hops if mode in ("packed", "cached") else 0))

    def packed_rows(self, batches: int, window: int, slots: int) -> int:
        """Rows that ``batches`` batches take from the features beyond what the cache serves, upper estimate."""
        rows = self.pilot.fetched_rows(slots, window=window, num_batches=batches)
        return int(min(_ROWS_MARGIN * rows, batches * self.pilot.mean_nodes))

    def _check_memory(self, mode: Mode, needed: int, slots: int) -> None:
        if needed <= self.memory:
            return
        knobs = "sampler.batch_size or sampler.fanouts"
        if slots:
            knobs = f"pack.host_cache ({format_bytes(slots * self.row)} now), {knobs}"
        if mode == "memory":
            knobs = f"{knobs}, or choose pack.mode: auto"
        needed += self.run.memory - self.memory  # what batches of the other split hold at the same time
        raise MemoryBudgetError(
            f"training in mode {mode} takes about {format_bytes(needed)} and memory is "
            f"{format_bytes(self.run.memory)}; set memory to at least {needed // (1 << 20) + 1}MiB, or lower {knobs}"
        )

    def _check_disk(self, mode: Mode, batches: int, slots: int) -> None:
        needed = self.disk_bytes(mode, batches, slots)
        if needed <= self.disk:
            return
        fewer = " or pack.window" if self.run.pack.window != "auto" and self.schedule.samples == "fresh" else ""
        total = self.run.pack.disk
        left = "" if self.disk == total else f", of which {format_bytes(self.disk)} are left for them"
        # Training and validation share the budget, and validation takes half of it at most.
        enough = needed if self.disk == total else max(needed + total - self.disk, 2 * needed)
        raise ConfigError(
            f"windows in mode {mode} with {self.schedule.samples} samples take about {format_bytes(needed)} and "
            f"pack.disk is {format_bytes(total)}{left}; raise pack.disk to {enough // (1 << 20) + 1}MiB, lower "
            f"sampler.batch_size{fewer}, or choose another pack.mode"
        )


def hops_nbytes(num_nodes: float, num_edges: float) -> int:
    """Return the bytes of a batch's ids, hops, degrees and residency arrays on disk, page alignment included.

    Cost per node: id 8, indptr 4, degree 4, residency source 4, fetched id 8, insertions 8; per edge: index 4.
    """
    return int(36 * num_nodes + 4 * num_edges) + 4096
