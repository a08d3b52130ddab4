"""Sampled edges per second, the topology in memory."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from graphsys.bench.result import Measured
from graphsys.bench.setting import Setting
from graphsys.core.machine import cores
from graphsys.core.metrics import measure
from graphsys.core.progress import Progress
from graphsys.core.types import Array, NodeIds, SampledBatch, Topology
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.samplers.schedule import Schedule
from graphsys.storage.jit import njit

_READS = 1 << 22  # random reads that the limit is taken from, per thread
_LEAST_S = 1.0  # a round takes at least as long: small graphs are sampled in a blink


def num_threads(setting: Setting) -> int:
    """Return how many threads sample."""
    return setting.threads or cores()


def measure_sampler(setting: Setting, progress: Progress) -> Measured:  # noqa: ARG001 - every part takes one
    """Measure sampling alone, one batch per thread; the limit is one random read of the topology per edge."""
    store, name = setting.open_store()
    topology = store.topology(store.edge_type_within(name), in_memory=True)
    schedule = setting.schedule(store.split(name, "train"))
    threads = num_threads(setting)
    with measure("sample") as report, ThreadPoolExecutor(threads) as pool:
        _sample(topology, schedule, setting, pool, range(min(2 * threads, schedule.num_batches)))  # compiles
        rounds, edges, passes = [], 0, 0
        for _ in range(setting.rounds):
            started, edges, passes = time.perf_counter(), 0, 0
            while time.perf_counter() - started < _LEAST_S:
                edges += _sample(topology, schedule, setting, pool, range(schedule.num_batches))
                passes += 1
            rounds.append(edges / (time.perf_counter() - started))
        limit = _random_reads_s(topology.indices, pool, threads)
    return Measured(
        rounds=tuple(rounds),
        limit=limit,
        details={
            "threads": threads,
            "batches_per_epoch": schedule.num_batches,
            "edges_per_batch": edges / passes / schedule.num_batches,
            "limit_is": "random reads of the topology per second, as many threads",
        },
        peak_memory_bytes={"sample": report.peak_rss_bytes},
    )


def batches_of(setting: Setting, topology: Topology, node: NodeIds) -> Iterator[SampledBatch]:
    """Yield the sampled batches of one epoch over ``node`` [*], in order."""
    schedule = setting.schedule(node)
    for position in range(schedule.num_batches):
        yield _sample_one(topology, schedule, setting, position)


def _sample(
    topology: Topology, schedule: Schedule, setting: Setting, pool: ThreadPoolExecutor, positions: range
) -> int:
    """Sample the batches at ``positions``; return their edges."""
    return sum(pool.map(lambda place: _sample_one(topology, schedule, setting, place).num_edges, positions))


def _sample_one(topology: Topology, schedule: Schedule, setting: Setting, position: int) -> SampledBatch:
    seeds, key = schedule.seeds(position).node, schedule.key(position)
    return sample_neighbors(topology, seeds, setting.fanouts, key=key)


def _random_reads_s(indices: Array, pool: ThreadPoolExecutor, threads: int) -> float:
    """Return how many elements per second ``threads`` threads read at random places."""
    if not indices.shape[0]:
        return 0.0
    places = [np.random.default_rng(seed).integers(0, indices.shape[0], _READS) for seed in range(threads)]
    list(pool.map(lambda place: _sum_at(indices, place[:1]), places))  # compiles
    started = time.perf_counter()
    list(pool.map(lambda place: _sum_at(indices, place), places))
    return threads * _READS / (time.perf_counter() - started)


@njit
def _sum_at(values: Array, place: NodeIds) -> int:
    total = 0
    for index in place:
        total += values[index]
    return total
