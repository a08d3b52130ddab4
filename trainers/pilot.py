"""A few batches sampled ahead of everything else: how large they are and how far they overlap."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphsys.core.config import RunConfig
from graphsys.core.types import BatchKey, NodeIds, Topology
from graphsys.core.units import MIB
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.samplers.schedule import Schedule

PILOT_BATCHES = 8
_LEAST_MEMORY = 64 * MIB  # for one batch, whatever the budget: its size tells which budget would do
_MARGIN = 1.15  # the largest of a run's batches over the largest of the pilot's


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What a few batches of a schedule look like."""

    num_graph_nodes: int  # N
    mean_nodes: float  # distinct nodes per batch
    mean_edges: float  # sampled edges per batch
    max_nodes: int  # upper estimate over the whole schedule
    max_edges: int
    shared: tuple[tuple[int, ...], ...]  # [K][K] nodes of pilot batch i that j + 1 of the K batches hold
    seconds_per_batch: float  # on one thread; no decision depends on it

    def hit_share(self, num_slots: int) -> float:
        """Return the share of a batch's rows that a cache of ``num_slots`` rows serves, estimated from below.

        Each pilot batch is looked up in the rows that most of the others want; slots that those leave free are taken
        to hold any of the other nodes with equal chance. An optimal plan does better.
        """
        if num_slots >= self.num_graph_nodes:
            return 1.0
        total = sum(sum(counts) for counts in self.shared)
        return sum(self._hits(index, num_slots) for index in range(len(self.shared))) / max(total, 1)

    def _hits(self, index: int, num_slots: int) -> float:
        own, num_batches = self.shared[index], len(self.shared)
        hits, free, left = 0.0, float(num_slots), float(self.num_graph_nodes)
        for count in range(num_batches - 1, 0, -1):
            wanted = own[count]  # rows of this batch that ``count`` others hold too
            # Every node is counted once by each batch that holds it.
            everywhere = sum(counts[count - 1] for counts in self.shared) / count
            rows = everywhere - own[count - 1] + wanted  # rows that ``count`` of the others hold
            kept = min(free, rows)
            hits += wanted * kept / max(rows, 1)
            free, left = free - kept, left - rows
        return hits + (sum(own) - hits) * free / max(left, 1)


def run_pilot(run: RunConfig, schedule: Schedule, topology: Topology) -> Pilot:
    """Sample up to eight batches spread over the schedule; the result depends on the arguments only, times aside.

    Args:
        topology: in-edges of the graph; may be memory-mapped.

    Raises:
        MemoryBudgetError: Sampling a single batch takes more than ``run.memory`` and 64 MiB.
    """
    positions = _pilot_positions(schedule)
    sizes: list[tuple[int, int]] = []
    trace: list[NodeIds] = []
    seconds: list[float] = []
    for position in positions:
        seeds = schedule.seeds(int(position))
        key = BatchKey(seed=schedule.seed, epoch=seeds.epoch, batch_id=seeds.batch_id)
        started = time.perf_counter()
        batch = sample_neighbors(
            topology,
            seeds.node,
            run.sampler.fanouts,
            key=key,
            replace=run.sampler.replace,
            weighted=run.sampler.weighted,
            memory=max(run.memory, _LEAST_MEMORY),
        )
        seconds.append(time.perf_counter() - started)
        sizes.append((batch.num_nodes, batch.num_edges))
        trace.append(batch.node)
    nodes, edges = np.array(sizes).T
    return Pilot(
        num_graph_nodes=topology.num_nodes,
        mean_nodes=float(nodes.mean()),
        mean_edges=float(edges.mean()),
        max_nodes=min(int(nodes.max() * _MARGIN) + 1, topology.num_nodes),
        max_edges=min(int(edges.max() * _MARGIN) + 1, topology.num_edges),
        shared=count_shared(trace),
        # The first call compiles the kernel, so it says nothing about speed.
        seconds_per_batch=float(np.median(seconds[1:] or seconds)),
    )


def _pilot_positions(schedule: Schedule) -> NodeIds:
    # An epoch's last batch may be short; a pilot that met several would take every batch for a small one.
    per_epoch = schedule.batches_per_epoch
    full = max(len(schedule.nodes) // schedule.batch_size, 1)
    total = schedule.num_batches // per_epoch * full
    chosen = np.unique(np.linspace(0, total - 1, min(PILOT_BATCHES, total)).astype(np.int64))
    return chosen // full * per_epoch + chosen % full


def count_shared(trace: Sequence[NodeIds]) -> tuple[tuple[int, ...], ...]:
    """Return [K][K]: how many nodes of batch i are held by j + 1 of the K batches of ``trace``, itself included."""
    node, count = np.unique(np.concatenate(trace), return_counts=True)
    held = [count[np.searchsorted(node, batch)] for batch in trace]
    return tuple(tuple(np.bincount(counts - 1, minlength=len(trace)).tolist()) for counts in held)
