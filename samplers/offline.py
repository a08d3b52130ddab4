"""Samples a window's batches ahead of training and writes them in order."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from graphsys.core.progress import Task
from graphsys.core.types import Array, NodeIds, Topology
from graphsys.samplers.ahead import by_groups, sample_batches
from graphsys.samplers.expansion import Drawing
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
        topology: Edges of one node type to itself; those of a store may be larger than ``memory``, see
            :func:`graphsys.samplers.ahead.sample_batches`.
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
    flush_bytes = _flush_nbytes(memory)
    drawing = Drawing(fanouts=tuple(fanouts), replace=replace, weighted=weighted, with_degree=with_degree)
    batches = sample_batches(topology, schedule, positions, drawing, threads=threads, memory=memory - flush_bytes)
    # Batches are closed here and now, also by an error: no thread still samples when this function has returned.
    with WindowWriter(path, header=header, flush_bytes=flush_bytes) as writer, closing(batches):
        for sampled in batches:
            y = None if labels is None else np.ascontiguousarray(labels[sampled.node[: sampled.batch_size]])
            writer.add(sampled, y=y)
            if task is not None:
                task.advance()
        writer.close()


def window_by_groups(topology: Topology, schedule: Schedule, drawing: Drawing, *, memory: int) -> bool:
    """Whether :func:`sample_window` with ``memory`` reads the edges of groups of batches, and none through a map."""
    return by_groups(topology, schedule, drawing, memory=memory - _flush_nbytes(memory))


def _flush_nbytes(memory: int) -> int:
    return min(memory // _FLUSH_SHARE, _FLUSH_MAX)


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
    drawing = Drawing(fanouts=tuple(fanouts), replace=replace, weighted=weighted)
    with closing(sample_batches(topology, schedule, positions, drawing, threads=threads, memory=memory)) as batches:
        return [sampled.node.copy() for sampled in batches]
