"""What the stages of a run should cost, from a few sampled batches, one timed step and the speed of the disk.

The formulas follow what the stages do: bytes from counts, seconds from bytes and measured speeds. They are meant to
be right within a factor of two and to rank the modes, and are printed beside what was measured.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from graphsys.samplers.schedule import Schedule
from graphsys.storage.disk_speed import DiskSpeed
from graphsys.storage.features import GATHER_EXTENT, GATHER_GAP, SCAN_GAP
from graphsys.trainers.chunks import ChunkLimits, LayerCost
from graphsys.trainers.edge_ranges import EDGE_NBYTES, num_ranges
from graphsys.trainers.passes import PassLimits
from graphsys.trainers.pilot import Pilot
from graphsys.trainers.plan import PackPlan

PLAN_ACCESS_S = 2.5e-7  # seconds to plan and route one access of a window; measured on one core
GATHER_BYTES_S = 1.2e9  # bytes per second that a gather goes through at most, read and copied; measured on two cores
# Seconds of one core per edge of a layer, and per column of its state: sorting, messages, sums, outputs; measured.
ADD_EDGE_S = 6e-8
ADD_CHANNEL_S = 1e-9
_LABEL_NBYTES = 9  # of a node: its class and its split
_START_NBYTES = 8  # of a node in indptr
_BLOCK_SHARE = 8  # of the memory, as a divisor: blocks of rows that pass by
_PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Predicted cost of one stage, under the names of a stage's report."""

    seconds: float
    device_bytes_read: int
    device_bytes_written: int
    useful_bytes: int
    memory_bytes: int  # data at the peak; the interpreter comes on top

    def as_dict(self) -> dict[str, float]:
        """Return plain JSON values."""
        return {
            "seconds": round(self.seconds, 3),
            "device_bytes_read": self.device_bytes_read,
            "device_bytes_written": self.device_bytes_written,
            "useful_bytes": self.useful_bytes,
            "memory_bytes": self.memory_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What there is to do: sizes of the graph and of one batch, and how fast the machine is."""

    pilot: Pilot
    schedule: Schedule
    num_nodes: int
    num_edges: int
    dim: int
    topology_bytes: int
    layer_dims: tuple[int, ...]  # output columns of each layer
    width: int  # columns of the widest tensor inside a layer
    state_channels: tuple[int, ...]  # of each layer run as passes over the rows; empty: layers take chunks of edges
    needs_degree: bool  # whether layers need the degrees of sources
    memory: int
    validations: int  # passes over the validation nodes
    val_batches: int
    step_s: float  # one training step
    forward_s: float  # one forward pass of the same batch
    forward_edges: int  # edges that pass runs over, all layers together
    sample_threads: int
    disk: DiskSpeed

    @property
    def index_nbytes(self) -> int:
        """Bytes of a source id in the store."""
        return (self.topology_bytes - _START_NBYTES * (self.num_nodes + 1)) // max(self.num_edges, 1)

    @property
    def feature_bytes(self) -> int:
        """Bytes of all features."""
        return self.num_nodes * self.dim * 4

    @property
    def distinct_batches(self) -> int:
        """Batches that are sampled, validation included."""
        return self.schedule.num_batches + self.val_batches

    @property
    def read_batches(self) -> int:
        """Batches that training reads over all epochs, validations included."""
        return self.schedule.batches_per_epoch * self.schedule.epochs + self.val_batches * self.validations

    @property
    def sample_bytes(self) -> float:
        """Bytes of one sampled batch on disk: an id per node, an index per edge, a start per expanded node."""
        return 8 * self.pilot.mean_nodes + 5 * self.pilot.mean_edges + _PAGE


def sample_cost(work: Work, plan: PackPlan) -> StageCost:
    """Return the cost of sampling every window once."""
    batches = work.distinct_batches
    written = int(batches * work.sample_bytes)
    read = min(work.topology_bytes, int(batches * work.pilot.mean_nodes * _PAGE))
    compute_s = batches * work.pilot.seconds_per_batch / work.sample_threads
    return StageCost(
        seconds=compute_s + written / work.disk.write_bytes_s + read / work.disk.read_bytes_s,
        device_bytes_read=read,
        device_bytes_written=written,
        useful_bytes=written,
        memory_bytes=plan.producer_bytes,
    )


def pack_cost(work: Work, plan: PackPlan) -> StageCost:
    """Return the cost of planning and packing every window once; nothing in modes that need neither."""
    if plan.mode not in ("packed", "cached"):
        return StageCost(seconds=0.0, device_bytes_read=0, device_bytes_written=0, useful_bytes=0, memory_bytes=0)
    batches = work.distinct_batches
    windows = plan.num_windows + (1 if work.val_batches else 0)
    read, rows = batches * work.sample_bytes, 0.0
    written = batches * _window_bytes(work, plan)
    if plan.mode == "packed":
        rows = batches * _fetched_rows(work, plan)
        read += windows * _scan_bytes(work, rows / windows)
        written += rows * plan.row_nbytes
    plan_s = batches * work.pilot.mean_nodes * PLAN_ACCESS_S
    return StageCost(
        seconds=plan_s + read / work.disk.read_bytes_s + written / work.disk.write_bytes_s,
        device_bytes_read=int(read),
        device_bytes_written=int(written),
        useful_bytes=int(rows * work.dim * 4),
        memory_bytes=plan.producer_bytes,
    )


def train_cost(work: Work, plan: PackPlan) -> StageCost:
    """Return the cost of all epochs: reading runs ahead of computing, so the slower of the two counts."""
    rows = 0.0 if plan.mode == "memory" else _fetched_rows(work, plan)
    row_bytes, requests = _row_reads(work, plan, rows)
    window_bytes = _window_bytes(work, plan)
    batch_bytes = window_bytes + row_bytes
    gathered_s = row_bytes / GATHER_BYTES_S if plan.mode in ("cached", "direct") else 0.0
    read_s = max(batch_bytes / work.disk.read_bytes_s, requests / work.disk.random_reads_s, gathered_s)
    once = work.feature_bytes if plan.mode == "memory" else 0
    seconds = work.schedule.batches_per_epoch * work.schedule.epochs * max(work.step_s, read_s)
    seconds += work.val_batches * work.validations * max(work.forward_s, read_s)
    return StageCost(
        seconds=seconds + once / work.disk.read_bytes_s,
        device_bytes_read=int(work.read_batches * batch_bytes) + once,
        device_bytes_written=0,
        useful_bytes=int(work.read_batches * (window_bytes + rows * work.dim * 4)) + once,
        memory_bytes=plan.working_bytes + plan.cache_bytes + once,
    )


def infer_cost(work: Work) -> StageCost:
    """Return the cost of running every layer over all nodes and of scoring what comes out.

    Raises:
        MemoryBudgetError: The budget does not hold a few edges of some layer.
    """
    dims = (work.dim, *work.layer_dims)
    layer = _pass_cost if work.state_channels else _chunk_cost
    layers = [layer(work, index, before, after) for index, (before, after) in enumerate(pairwise(dims))]
    scored = work.num_nodes * (4 * work.layer_dims[-1] + _LABEL_NBYTES)
    return StageCost(
        seconds=sum(cost.seconds for cost in layers) + scored / work.disk.read_bytes_s,
        device_bytes_read=sum(cost.device_bytes_read for cost in layers) + scored,
        device_bytes_written=sum(cost.device_bytes_written for cost in layers),
        useful_bytes=sum(cost.useful_bytes for cost in layers) + scored,
        memory_bytes=max(cost.memory_bytes for cost in layers),
    )


def _pass_cost(work: Work, index: int, before: int, after: int) -> StageCost:
    channels = work.state_channels[index]
    limits = PassLimits.of(
        work.memory,
        num_nodes=work.num_nodes,
        dim=before,
        width=max(before, work.width),
        state_nbytes=4 * channels,
    )
    state = work.num_nodes * 4 * channels + work.num_edges * EDGE_NBYTES
    ranges = num_ranges(
        num_nodes=work.num_nodes,
        num_edges=work.num_edges,
        nbytes=limits.range_nbytes,
        state_nbytes=4 * channels,
        index_nbytes=work.index_nbytes,
    )
    rows = work.num_nodes * before * 4
    read = work.topology_bytes + (rows if limits.is_resident else (ranges + 1) * rows)
    read += ranges * work.num_nodes * _START_NBYTES if work.needs_degree else 0
    written = work.num_nodes * after * 4
    compute_s = work.num_edges * (ADD_EDGE_S + ADD_CHANNEL_S * channels) / work.sample_threads
    return StageCost(
        seconds=max(read / work.disk.read_bytes_s, compute_s) + written / work.disk.write_bytes_s,
        device_bytes_read=read,
        device_bytes_written=written,
        useful_bytes=work.topology_bytes + rows,
        memory_bytes=min(work.memory, state + (rows if limits.is_resident else 0) + work.memory // _BLOCK_SHARE),
    )


def _chunk_cost(work: Work, index: int, before: int, after: int) -> StageCost:
    del index
    cost = LayerCost.of(before, max(before, work.width))
    limits = ChunkLimits.of(work.memory, cost)
    rows, written = work.num_nodes * before * 4, work.num_nodes * after * 4
    read = work.topology_bytes + _num_chunks(work, limits) * rows
    compute_s = work.num_edges * work.forward_s / max(work.forward_edges, 1)
    return StageCost(
        seconds=compute_s + read / work.disk.read_bytes_s + written / work.disk.write_bytes_s,
        device_bytes_read=read,
        device_bytes_written=written,
        useful_bytes=work.topology_bytes + rows,
        memory_bytes=min(work.memory, min(work.num_nodes, limits.max_rows) * cost.row + limits.step_bytes),
    )


def table_cost(work: Work, layer: int, itemsize: int) -> StageCost:
    """Return the cost of writing the embedding table of ``layer``, counted from 1, once it is computed."""
    read = work.num_nodes * work.layer_dims[layer - 1] * 4
    written = work.num_nodes * work.layer_dims[layer - 1] * itemsize
    return StageCost(
        seconds=read / work.disk.read_bytes_s + written / work.disk.write_bytes_s,
        device_bytes_read=read,
        device_bytes_written=written,
        useful_bytes=written,
        memory_bytes=0,
    )


def _fetched_rows(work: Work, plan: PackPlan) -> float:
    """Rows of a batch that the cache does not hold."""
    return work.pilot.mean_nodes * (1 - work.pilot.hit_share(plan.num_slots))


def _window_bytes(work: Work, plan: PackPlan) -> float:
    """Bytes of a batch in the window that training reads, feature rows left out."""
    if plan.mode not in ("packed", "cached"):
        return work.sample_bytes
    return work.sample_bytes + 4 * work.pilot.mean_nodes + 10 * _fetched_rows(work, plan)  # residency


def _row_reads(work: Work, plan: PackPlan, rows: float) -> tuple[float, float]:
    """Bytes and requests that the rows of one batch take beside its window."""
    if plan.mode == "packed":
        return rows * plan.row_nbytes, 1
    if rows < 1:
        return 0.0, 1
    row = work.dim * 4
    gap = row * (work.num_nodes / rows - 1)
    if gap < GATHER_GAP:  # near rows share a read, so all that lies between them is read too
        return float(work.feature_bytes), work.feature_bytes / GATHER_EXTENT
    return rows * (row + _PAGE), rows


def _scan_bytes(work: Work, rows: float) -> int:
    """Bytes that a scan reads to meet ``rows`` accesses, some of them to the same node."""
    distinct = work.num_nodes * -math.expm1(-rows / work.num_nodes)
    return int(min(work.feature_bytes, distinct * (work.dim * 4 + SCAN_GAP)))


def _num_chunks(work: Work, limits: ChunkLimits) -> int:
    """Chunks whose rows are gathered, were sources drawn evenly; 1 when all rows fit at once."""
    if work.num_nodes <= limits.max_rows:
        return 1
    edges = -work.num_nodes * math.log1p(-limits.max_rows / work.num_nodes)
    return math.ceil(work.num_edges / max(min(edges, limits.max_edges), 1.0))
