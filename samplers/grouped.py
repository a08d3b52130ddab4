"""Sampling a graph whose edges do not fit into memory: many batches hop by hop, each hop's edges in one ascending pass.

What a batch draws depends on its key alone, so the places of a hop's edges are known before any of them is read.
"""

from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise

import numpy as np

from graphsys.core.types import BatchKey, NodeIds, SampledBatch
from graphsys.samplers.expansion import Drawing, Expansion, Frontier
from graphsys.samplers.kernels import Ids, Local, draw_places
from graphsys.storage.direct_ids import PASS_BYTES, DirectIds
from graphsys.storage.store import StoredTopology

_FRONTIER_BYTES = 20  # per node that is expanded: where its edges lie, how many, where the drawn ones start
_CLOSING_BYTES = 36  # per edge of a batch whose ids are made local: its hash table
_SEED_BYTES = 64  # the same of its seeds
_CLOSING_SHARE = 4  # this part of the memory takes more than one such table
_READER_SHARE = 8  # this part holds buffers of reads

Seeds = tuple[NodeIds, BatchKey]  # [B] global ids of a batch, and what its draws depend on


def least_memory(topology: StoredTopology) -> int:
    """Return the bytes with which :func:`sample_groups` can read at all."""
    return _READER_SHARE * DirectIds.least_nbytes(topology.indices_array)


def sample_groups(
    topology: StoredTopology, seeds: Iterable[Seeds], drawing: Drawing, *, threads: int, memory: int
) -> Generator[SampledBatch, None, None]:
    """Yield the batch of each of ``seeds``, in order, as :func:`graphsys.samplers.neighbor.sample_neighbors` makes it.

    A group has as many batches as the memory allows. ``topology.indices`` is not looked at; ``indptr`` is.

    Args:
        drawing: how edges are drawn; not by weight.
        threads: batches that are worked on at once.
        memory: most bytes to allocate, at least :func:`least_memory`.

    Raises:
        MemoryBudgetError: A single batch does not fit ``memory``.
        DiskError: The system refused a read.
        NodeIdError, ConfigError, CorruptError: As :func:`graphsys.samplers.neighbor.sample_neighbors`.

    Cost:
        One pass over the touched parts of ``indices`` per hop and group. About 18 bytes of memory per edge of a group's
        batches, 22 where ids are int64, and 36 per edge of one of them or of as many as share a quarter of the memory.
    """
    seeds, waiting = iter(seeds), deque[Seeds]()
    buffers = min(memory // _READER_SHARE, DirectIds.most_nbytes(topology.indices_array))
    with (
        DirectIds(topology.indices_array, memory=buffers) as indices,
        ThreadPoolExecutor(threads, thread_name_prefix="graphsys-sample") as pool,
    ):
        groups = _Groups(topology, drawing, indices, pool, threads=threads, memory=memory - buffers)
        while waiting or (waiting := deque(islice(seeds, 1))):
            size = groups.size(len(waiting[0][0]))
            waiting.extend(islice(seeds, max(size - len(waiting), 0)))
            group = deque(groups.sample(list(islice(waiting, size))))
            while group:
                waiting.popleft()
                yield group.popleft().sampled()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Need:
    """Bytes that a batch takes."""

    held: int  # while its group is sampled
    closing: int  # more while its ids are made local


class _Groups:
    """Samples groups of batches; how large the next one is follows from the batches so far."""

    def __init__(
        self, topology: StoredTopology, drawing: Drawing, indices: DirectIds, pool: Executor,
        *, threads: int, memory: int,
    ) -> None:  # fmt: skip
        self._topology = topology
        self._drawing = drawing
        self._indices = indices
        self._pool = pool
        self._threads = threads
        self._memory = memory
        # Per edge of the hop in flight: its place and id; then id, node and, where ids are wide, local id.
        self._hop_bytes = PASS_BYTES + topology.indices.itemsize
        self._largest: _Need | None = None
        self._yielded = 0  # bytes of the largest batch so far: the last one given out may still be in use

    def size(self, num_seeds: int) -> int:
        """Return how many batches the next group has at most, at least one."""
        need = self._largest or self._most(num_seeds)
        free = self._memory - self._num_closing(need.closing) * need.closing - self._yielded
        return max(free // max(need.held, 1), 1)  # batches without seeds hold nothing

    def _most(self, num_seeds: int) -> _Need:
        most = self._drawing.most_edges(num_seeds, self._topology.num_edges)
        return _Need(
            held=(self._hop_bytes + _FRONTIER_BYTES) * (most + num_seeds) + 1,
            closing=_CLOSING_BYTES * most + _SEED_BYTES * num_seeds,
        )

    def sample(self, seeds: Sequence[Seeds]) -> list[Expansion]:
        """Sample as many batches of ``seeds`` as fit the memory, from the first on, and at least that; all hops."""
        batches = list(self._pool.map(self._begin, seeds))
        for hop in range(len(self._drawing.fanouts)):
            self._sample_hop(batches, last=hop == len(self._drawing.fanouts) - 1)
        self._yielded = max(self._yielded, *(batch.nbytes for batch in batches))
        return batches

    def _begin(self, seeds: Seeds) -> Expansion:
        node, key = seeds
        batch = Expansion(self._topology, node, self._drawing, key=key, memory=self._memory)
        batch.shrink()
        return batch

    def _sample_hop(self, batches: list[Expansion], *, last: bool) -> None:
        """Sample one hop of ``batches``, of which those that do not fit the memory after all are left out."""
        frontiers = list(self._pool.map(Expansion.open_hop, batches))
        needs = [self._need(batch, frontier, last=last) for batch, frontier in zip(batches, frontiers, strict=True)]
        fitting = self._num_fitting(needs)
        if last:
            known = [self._largest] if self._largest else []
            self._largest = max([*known, *needs], key=lambda need: need.held)
        # What does not fit begins anew in the next group: its size was not known, and its early hops cost little.
        del batches[fitting:], frontiers[fitting:]
        ends = accumulate((frontier.kept for frontier in frontiers), initial=0)
        parts = [slice(start, end) for start, end in pairwise(ends)]
        place = np.empty(parts[-1].stop, np.int64)
        indptrs = list(self._pool.map(_draw, frontiers, [place[part] for part in parts]))
        del frontiers
        ids = self._indices.take(place)
        del place
        step = self._num_closing(max(need.closing for need in needs[:fitting]))
        for start in range(0, fitting, step):
            some = slice(start, start + step)
            list(self._pool.map(_close, batches[some], indptrs[some], [ids[part] for part in parts[some]]))

    def _need(self, batch: Expansion, frontier: Frontier, *, last: bool) -> _Need:
        expanded = len(frontier.node) if last else len(frontier.node) + frontier.kept  # in this hop or the next
        return _Need(
            held=batch.nbytes + self._hop_bytes * frontier.kept + _FRONTIER_BYTES * expanded,
            closing=_CLOSING_BYTES * batch.num_edges + _SEED_BYTES * batch.num_seeds,
        )

    def _num_fitting(self, needs: Sequence[_Need]) -> int:
        held, closing = self._yielded, 0
        for index, need in enumerate(needs):
            held, closing = held + need.held, max(closing, need.closing)
            # A batch alone has been compared with the memory when its hop was opened.
            if index and held + self._num_closing(closing) * closing > self._memory:
                return index
        return len(needs)

    def _num_closing(self, closing: int) -> int:
        """Return how many batches, each of which takes ``closing`` bytes for it, may make their ids local at once."""
        return max(min(self._memory // _CLOSING_SHARE // max(closing, 1), self._threads), 1)


def _draw(frontier: Frontier, place: NodeIds) -> Local:
    """Write the places of the frontier's edges; return where those of each node start."""
    indptr = np.zeros(len(frontier.node) + 1, np.int32)
    draw_places(
        frontier.node, frontier.first, frontier.degree, frontier.fanout, frontier.replace, frontier.key,
        0, place, indptr,
    )  # fmt: skip
    return indptr


def _close(batch: Expansion, indptr: Local, ids: Ids) -> None:
    batch.close_hop(indptr, ids)
    batch.shrink()
