"""Samples a window's batches ahead of training: in parallel, one batch per thread, written in order."""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from graphsys.core.machine import cores
from graphsys.core.progress import Task
from graphsys.core.types import Array, BatchKey, NodeIds, SampledBatch, Topology
from graphsys.samplers.neighbor import BYTES_PER_EDGE, sample_neighbors
from graphsys.samplers.schedule import Schedule
from graphsys.storage.window import WindowHeader, WindowWriter

_FLUSH_SHARE = 8  # at most this part of the memory holds dirty pages of the window file
_FLUSH_MAX = 64 << 20
NARROW_IDS = 1 << 31  # nodes whose ids fit int32


def sample_window(
    topology: Topology,
    schedule: Schedule,
    positions: range,
    path: Path,
    *,
    fanouts: Sequence[int],
    replace: bool = False,
    weighted: bool = False,
    with_degree: bool,
    labels: Array | None,
    threads: int,
    fingerprint: str,
    window_index: int,
    memory: int,
    task: Task | None = None,
) -> None:
    """Write the sampled batches at ``positions`` to the window file ``path``: ids and labels, no features.

    The file's bytes depend on neither ``threads`` nor ``memory``. On failure ``path`` is as it was.

    Args:
        topology: Edges of one node type to itself; the arrays may be memory maps.
        positions: Consecutive positions of the schedule.
        fanouts: in-edges to keep per node, one entry per hop; -1 keeps all.
        replace, weighted: How they are drawn; see :func:`graphsys.samplers.neighbor.sample_neighbors`.
        with_degree: Also write every node's in-degree in the whole graph.
        labels: [N] int64, [N, C] uint8, or [N] or [N, C] float32; those of the seeds are written.
        threads: Batches sampled at once, where memory allows; 0: one per core.
        fingerprint: Of all that the window is made from.
        memory: Most bytes to allocate.
        task: Advanced by one per batch.

    Raises:
        MemoryBudgetError: A single batch does not fit ``memory``.
        DiskError: The system refused.
        NodeIdError, ConfigError, InputError, CorruptError: As :func:`graphsys.samplers.neighbor.sample_neighbors`.
    """
    header = WindowHeader(
        window_index=window_index,
        first_position=positions.start,
        num_batches=len(positions),
        num_hops=len(fanouts),
        fingerprint=fingerprint,
        narrow_ids=topology.num_nodes <= NARROW_IDS,
    )
    flush_bytes = min(memory // _FLUSH_SHARE, _FLUSH_MAX)
    job = _Job(
        topology=topology,
        schedule=schedule,
        fanouts=tuple(fanouts),
        replace=replace,
        weighted=weighted,
        with_degree=with_degree,
        memory=memory - flush_bytes,
    )
    with WindowWriter(path, header=header, flush_bytes=flush_bytes) as writer:
        # Closed here and now, also by an error: no thread still samples when this function has returned.
        with closing(_sample_in_order(job, positions, threads or cores())) as batches:
            for sampled in batches:
                y = None if labels is None else np.ascontiguousarray(labels[sampled.node[: sampled.batch_size]])
                writer.add(sampled, y=y)
                if task is not None:
                    task.advance()
        writer.close()


def sample_nodes(
    topology: Topology,
    schedule: Schedule,
    positions: Iterable[int],
    *,
    fanouts: Sequence[int],
    replace: bool = False,
    weighted: bool = False,
    threads: int,
    memory: int,
) -> list[NodeIds]:
    """Return the global ids [V] of the batches at ``positions``: what they will access, long before they are made.

    Arguments and errors are those of :func:`sample_window`.
    """
    job = _Job(
        topology=topology,
        schedule=schedule,
        fanouts=tuple(fanouts),
        replace=replace,
        weighted=weighted,
        with_degree=False,
        memory=memory,
    )
    with closing(_sample_in_order(job, positions, threads or cores())) as batches:
        return [sampled.node.copy() for sampled in batches]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What all batches of a window have in common."""

    topology: Topology
    schedule: Schedule
    fanouts: tuple[int, ...]
    replace: bool
    weighted: bool
    with_degree: bool
    memory: int  # bytes for batches in flight

    def run(self, seeds: NodeIds, key: BatchKey) -> SampledBatch:
        return sample_neighbors(
            self.topology,
            seeds,
            self.fanouts,
            key=key,
            replace=self.replace,
            weighted=self.weighted,
            with_degree=self.with_degree,
            memory=self.memory,
        )


def _sample_in_order(job: _Job, positions: Iterable[int], threads: int) -> Generator[SampledBatch, None, None]:
    """Yield the batches at ``positions``; those that exist at any moment, the yielded one included, fit the memory."""
    pending: deque[Future[SampledBatch]] = deque()
    allowed, largest = 1, 0  # one at a time until the size of one is known
    with ThreadPoolExecutor(threads, thread_name_prefix="graphsys-sample") as pool:
        try:
            for position in positions:
                # Seeds are looked up here, in order: a schedule keeps the shuffle of one epoch only.
                pending.append(pool.submit(job.run, job.schedule.seeds(position).node, job.schedule.key(position)))
                while len(pending) >= allowed:
                    sampled = pending.popleft().result()
                    largest = max(largest, BYTES_PER_EDGE * sampled.num_edges)
                    allowed = _num_in_flight(job.memory, largest, threads)
                    yield sampled
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _num_in_flight(memory: int, largest: int, threads: int) -> int:
    fitting = memory * 4 // (largest * 5 + 1)  # a quarter spare: the next batch may be larger than any before it
    return max(1, min(threads + 1, fitting))  # one more than threads, so that none waits while one is written
