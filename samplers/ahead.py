"""Batches sampled ahead of their use, in order: one per thread or, where edges do not fit into memory, by groups."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from graphsys.core.machine import cores
from graphsys.core.types import SampledBatch, Topology
from graphsys.samplers.expansion import BYTES_PER_EDGE, Drawing
from graphsys.samplers.grouped import Seeds, least_memory, sample_groups
from graphsys.samplers.neighbor import sample_batch
from graphsys.samplers.schedule import Schedule
from graphsys.storage.store import StoredTopology


def sample_batches(
    topology: Topology, schedule: Schedule, positions: Iterable[int], drawing: Drawing, *, threads: int, memory: int
) -> Generator[SampledBatch, None, None]:
    """Yield the batches at ``positions``; those that exist at any moment, the yielded one included, fit the memory.

    They depend on neither ``threads`` nor ``memory``. Close it to wait for what is under way.

    Args:
        topology: Edges of one node type to itself. Those of a store that do not fit ``memory`` beside a batch are read
            by groups of batches, see :mod:`graphsys.samplers.grouped`. Weighted draws look at every in-edge and go
            through the memory maps, whatever these take; so does a budget of less than a megabyte, too small to read.
        positions: Positions of the schedule.
        drawing: How edges are drawn.
        threads: Batches sampled at once, where memory allows; 0: one per core.
        memory: Most bytes to allocate.

    Raises:
        MemoryBudgetError: A single batch does not fit ``memory``.
        DiskError: The system refused a read.
        NodeIdError, ConfigError, InputError, CorruptError: As :func:`graphsys.samplers.neighbor.sample_neighbors`.
    """
    # Seeds are looked up in order, when they are needed: a schedule keeps the shuffle of one epoch only.
    seeds = ((schedule.seeds(position).node, schedule.key(position)) for position in positions)
    threads = threads or cores()
    left = _left_beside_map(topology, schedule, drawing, memory)
    if left is not None:
        return _sample_each(topology, seeds, drawing, threads, left)
    assert isinstance(topology, StoredTopology)
    return sample_groups(topology, seeds, drawing, threads=threads, memory=memory)


def by_groups(topology: Topology, schedule: Schedule, drawing: Drawing, *, memory: int) -> bool:
    """Whether :func:`sample_batches` reads the edges of groups of batches, and none through a map."""
    return _left_beside_map(topology, schedule, drawing, memory) is None


def _left_beside_map(topology: Topology, schedule: Schedule, drawing: Drawing, memory: int) -> int | None:
    """Return the bytes for batches whose edges are held or mapped; None where they are to be read by groups."""
    if not isinstance(topology, StoredTopology) or drawing.weighted or memory < least_memory(topology):
        return memory
    # The pages of the maps are this process's, and so are those of any batch: one that is as large as it can be.
    left = memory - topology.nbytes
    fits = BYTES_PER_EDGE * drawing.most_edges(schedule.batch_size, topology.num_edges) <= left
    return left if fits else None


def _sample_each(
    topology: Topology, seeds: Iterable[Seeds], drawing: Drawing, threads: int, memory: int
) -> Generator[SampledBatch, None, None]:
    pending: deque[Future[SampledBatch]] = deque()
    allowed, largest = 1, 0  # one at a time until the size of one is known
    with ThreadPoolExecutor(threads, thread_name_prefix="graphsys-sample") as pool:
        try:
            for node, key in seeds:
                pending.append(pool.submit(sample_batch, topology, node, drawing, key=key, memory=memory))
                while len(pending) >= allowed:
                    sampled = pending.popleft().result()
                    largest = max(largest, BYTES_PER_EDGE * sampled.num_edges)
                    allowed = _num_in_flight(memory, largest, threads)
                    yield sampled
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _num_in_flight(memory: int, largest: int, threads: int) -> int:
    fitting = memory * 4 // (largest * 5 + 1)  # a quarter spare: the next batch may be larger than any before it
    return max(1, min(threads + 1, fitting))  # one more than threads, so that none waits while one is written
