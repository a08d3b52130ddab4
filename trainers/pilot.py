"""A few batches sampled ahead of everything else: how large they are, how far they overlap, how long they took."""

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from graphsys.core.config import RunConfig
from graphsys.core.metrics import device_bytes
from graphsys.core.types import NodeIds, SampledBatch, Topology
from graphsys.core.units import MIB
from graphsys.samplers.ahead import by_groups, sample_batches
from graphsys.samplers.expansion import Drawing
from graphsys.samplers.schedule import Schedule
from graphsys.storage.store import StoredTopology
from graphsys.trainers.trace_model import fetched_rows, fit_frequencies

PILOT_BATCHES = 16
_LEAST_MEMORY = 64 * MIB  # for one batch, whatever the budget: its size tells which budget would do
_LOOK_AHEAD = 6.5  # accesses that a cache plan knows of behind its window, per slot
_NO_BOUND = 1 << 62  # edges
_PAGE_COST = 128 << 10  # bytes that are read front to back in the time of one page by itself
_MARGIN = 1.15  # the largest of a run's batches over the largest of the pilot's


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What a few batches of a schedule look like."""

    num_graph_nodes: int  # N
    mean_nodes: float  # distinct nodes per batch
    mean_edges: float  # sampled edges per batch
    mean_expanded: float  # nodes per batch whose in-edges were sampled
    max_nodes: int  # upper estimate over the whole schedule
    max_edges: int
    frequencies: tuple[float, ...]  # how often nodes are accessed, as of trace_model.fit_frequencies
    seconds_per_batch: float  # of wall time with all sampling threads at work; no decision depends on it
    read_bytes: int  # of the device, while the pilot was sampled; no decision depends on it

    def fetched_rows(self, num_slots: int, *, window: int, num_batches: int, warm: bool = False) -> float:
        """Return the rows that ``num_batches`` batches take from beyond the cache, in windows of ``window``.

        Args:
            num_slots: rows that the cache holds.
            window: batches per window.
            num_batches: batches in all.
            warm: whether the cache holds at first what other batches have left in it, and is not empty.
        """
        if not num_slots:
            return self.mean_nodes * num_batches
        rows = fetched_rows(
            self.frequencies, self.num_graph_nodes, num_slots=num_slots, window=window, num_batches=num_batches,
            ahead=self.look_ahead(num_slots, window=window), warm=warm,
        )  # fmt: skip
        return min(rows, self.mean_nodes * num_batches)

    def look_ahead(self, num_slots: int, *, window: int) -> int:
        """Return how many batches behind a window of ``window`` batches its cache plan knows of.

        A cache lets go of the rows that are needed last, so it holds none that are needed far ahead: on a power-law
        graph and a cache of 10 %, plans that know six times as many accesses as slots are those that know everything.
        """
        return min(math.ceil(_LOOK_AHEAD * num_slots / max(self.mean_nodes, 1)), window)


def run_pilot(run: RunConfig, schedule: Schedule, topology: Topology) -> Pilot:
    """Sample up to sixteen batches spread over the schedule; the result depends on the arguments only, times aside.

    Args:
        topology: in-edges of the graph; those of a store may be larger than ``run.memory``.

    Raises:
        MemoryBudgetError: Sampling a single batch takes more than ``run.memory`` and 64 MiB.
    """
    sampler, tally = run.sampler, _Tally(topology.num_nodes)
    drawing = Drawing(fanouts=tuple(sampler.fanouts), replace=sampler.replace, weighted=sampler.weighted)
    memory = max(run.memory, _LEAST_MEMORY)
    positions = _pilot_positions(schedule)
    read_before = device_bytes()[0]
    _prefetch(topology, schedule, drawing, memory=memory, batches=len(positions))

    def sample(positions: NodeIds) -> None:
        at = positions.tolist()
        with closing(
            sample_batches(topology, schedule, at, drawing, threads=sampler.threads, memory=memory)
        ) as batches:
            for batch in batches:
                tally.add(batch)

    sample(positions[:1])  # compiles the kernels, so it says nothing about speed
    started = time.perf_counter()
    sample(positions[1:])
    seconds = (time.perf_counter() - started) / max(len(positions) - 1, 1)
    # Without replacement no edge comes twice.
    most_edges = _NO_BOUND if sampler.replace else topology.num_edges
    return tally.pilot(topology, most_edges, seconds, device_bytes()[0] - read_before)


def _prefetch(topology: Topology, schedule: Schedule, drawing: Drawing, *, memory: int, batches: int) -> None:
    """Read a topology that fits memory front to back, where its pages one by one, as batches ask for them, take longer.

    Whatever samples afterwards, in this process or another one, finds it in the page cache.
    """
    if not isinstance(topology, StoredTopology) or by_groups(topology, schedule, drawing, memory=memory):
        return
    seeds = schedule.batch_size
    expanded = seeds + replace(drawing, fanouts=drawing.fanouts[:-1]).most_edges(seeds, topology.num_edges)
    nbytes = topology.read_nbytes(weighted=drawing.weighted)
    if nbytes <= memory and batches * expanded * _PAGE_COST >= nbytes:
        topology.prefetch(weighted=drawing.weighted)


class _Tally:
    """Sums over the pilot's batches, which need not be kept."""

    def __init__(self, num_nodes: int) -> None:
        self._met = np.zeros(num_nodes, np.uint8)
        self._sizes: list[tuple[int, int, int]] = []

    def add(self, batch: SampledBatch) -> None:
        self._met[batch.node] += 1
        self._sizes.append((batch.num_nodes, batch.num_edges, batch.indptr.shape[0] - 1))

    def pilot(self, topology: Topology, most_edges: int, seconds_per_batch: float, read_bytes: int) -> Pilot:
        nodes, edges, expanded = np.array(self._sizes).T
        met = np.bincount(self._met, minlength=len(self._sizes) + 1)
        return Pilot(
            num_graph_nodes=topology.num_nodes,
            mean_nodes=float(nodes.mean()),
            mean_edges=float(edges.mean()),
            mean_expanded=float(expanded.mean()),
            max_nodes=min(int(nodes.max() * _MARGIN) + 1, topology.num_nodes),
            max_edges=min(int(edges.max() * _MARGIN) + 1, most_edges),
            frequencies=fit_frequencies(met, len(self._sizes)),
            seconds_per_batch=seconds_per_batch,
            read_bytes=read_bytes,
        )


def _pilot_positions(schedule: Schedule) -> NodeIds:
    # An epoch's last batch may be short; a pilot that met several would take every batch for a small one.
    per_epoch = schedule.batches_per_epoch
    full = max(schedule.index(len(schedule.nodes) // schedule.batch_size), 1)
    total = schedule.num_batches // per_epoch * full
    chosen = np.unique(np.linspace(0, total - 1, min(PILOT_BATCHES, total)).astype(np.int64))
    return chosen // full * per_epoch + chosen % full
