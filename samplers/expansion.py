"""One batch's neighbourhood while it grows: the steps of a hop that do not depend on where the edges are read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphsys.core.errors import ConfigError, CorruptError, MemoryBudgetError, NodeIdError
from graphsys.core.seeding import batch_stream
from graphsys.core.types import BatchKey, NodeIds, SampledBatch, Topology
from graphsys.core.units import format_bytes
from graphsys.samplers.kernels import Ids, Local, find_columns, gather_degrees
from graphsys.samplers.local_ids import LocalIds
from graphsys.storage.random import draw

BYTES_PER_EDGE = 56  # upper bound of a batch's peak; 35 is usual, 56 where most edges reach a node of their own
_MAX_LOCAL = np.iinfo(np.int32).max


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How edges are drawn; see :func:`graphsys.samplers.neighbor.sample_neighbors`."""

    fanouts: tuple[int, ...]  # one entry per hop (L); -1: all
    replace: bool = False
    weighted: bool = False
    with_degree: bool = False  # whether batches carry in-degrees in the whole graph

    def most_edges(self, num_seeds: int, num_edges: int) -> int:
        """Return an upper bound of the edges that a batch of ``num_seeds`` has in a graph of ``num_edges``."""
        reached, total = num_seeds, 0
        for fanout in self.fanouts:
            reached = num_edges if fanout < 0 else reached * fanout
            total += reached
        # A node is expanded once, so without replacement no edge comes twice.
        return total if self.replace else min(total, num_edges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """The nodes whose in-edges are drawn next, where these lie, and how they are drawn."""

    node: NodeIds  # [F] global ids
    first: NodeIds  # [F] place in topology.indices
    degree: NodeIds  # [F]
    kept: int  # most edges to sample; fewer where edges of weight zero are left out
    fanout: int  # -1: all
    replace: bool
    key: np.uint64  # of the batch and the hop


class Expansion:
    """A batch that is sampled hop by hop: :meth:`open_hop` and :meth:`close_hop` for each, then :meth:`sampled`.

    Args:
        topology: edges of one node type to itself.
        seeds: [B] int64 global ids, unique.
        drawing: how edges are drawn.
        key: what the draws depend on, beside the node ids.
        memory: most bytes that the batch may take; None: no limit.

    Raises:
        NodeIdError, ConfigError: As :func:`graphsys.samplers.neighbor.sample_neighbors`.
    """

    def __init__(
        self, topology: Topology, seeds: NodeIds, drawing: Drawing, *, key: BatchKey, memory: int | None
    ) -> None:
        _check(drawing, topology)
        self.graph = _readonly(topology)
        self.num_edges = 0  # of the hops opened so far
        self._drawing = drawing
        self._key = key
        self._memory = memory
        self._stream = np.uint64(batch_stream(key))
        self._labels = LocalIds(self.graph.num_nodes, len(seeds))
        _enter_seeds(self._labels, seeds, self.graph.num_nodes)
        self._num_nodes = [self._labels.count]
        self._hops: list[_HopEdges] = []

    @property
    def num_seeds(self) -> int:
        """Number of seeds B."""
        return self._num_nodes[0]

    @property
    def nbytes(self) -> int:
        """Bytes held between hops, once :meth:`shrink` was called."""
        return self._labels.node.nbytes + sum(hop.indptr.nbytes + hop.local.nbytes for hop in self._hops)

    def open_hop(self) -> Frontier:
        """Return the nodes to expand next.

        Raises:
            ConfigError, MemoryBudgetError, CorruptError: As :func:`graphsys.samplers.neighbor.sample_neighbors`.
        """
        hop, labels, drawing, graph = len(self._hops), self._labels, self._drawing, self.graph
        node = labels.node[labels.count - self._num_nodes[-1] : labels.count]
        fanout = drawing.fanouts[hop]
        first, degree = np.empty(len(node), np.int64), np.empty(len(node), np.int64)
        kept = find_columns(graph.indptr, graph.num_edges, node, fanout, drawing.replace, first, degree)
        if kept < 0:
            raise CorruptError(
                f"the topology is corrupt: the in-edges of node {node[-1 - kept]} lie outside its {graph.num_edges} "
                f"edges. Run `graphsys verify` on the store"
            )
        self.num_edges += kept
        _check_size(self._key, hop, self.num_edges, self._memory)
        key = np.uint64(draw(self._stream, np.uint64(hop)))
        return Frontier(
            node=node, first=first, degree=degree, kept=kept, fanout=fanout, replace=drawing.replace, key=key
        )

    def close_hop(self, indptr: Local, ids: Ids) -> None:
        """Take the edges of the hop that was opened.

        Args:
            indptr: [F + 1] where the edges of each node of the frontier start; starts at 0.
            ids: [*] global source ids; may be overwritten.

        Raises:
            CorruptError: An id is outside the graph.
        """
        self._hops.append(_HopEdges(indptr=indptr, local=self._labels.assign(ids)))
        self._num_nodes.append(self._labels.count - sum(self._num_nodes))

    def shrink(self) -> None:
        """Let go of what is only needed while a hop is closed."""
        self._labels.shrink()

    def sampled(self) -> SampledBatch:
        """Return the batch; all hops are closed."""
        self._labels.shrink()
        node = self._labels.node
        return SampledBatch(
            epoch=self._key.epoch,
            batch_id=self._key.batch_id,
            node=node,
            indptr=_join_indptr(self._hops),
            indices=np.concatenate([np.empty(0, np.int32), *(hop.local for hop in self._hops)]),
            num_sampled_nodes=tuple(self._num_nodes),
            num_sampled_edges=tuple(len(hop.local) for hop in self._hops),
            in_degree=_in_degree(self.graph, node) if self._drawing.with_degree else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _HopEdges:
    """The sampled edges of one hop."""

    indptr: Local  # [F + 1] starts at 0
    local: Local  # [kept] local source ids


def _check(drawing: Drawing, topology: Topology) -> None:
    for fanout in drawing.fanouts:
        if fanout < -1:
            raise ConfigError(f"a fanout is {fanout}; give a number of neighbours, or -1 for all")
    if drawing.weighted and topology.weight is None:
        raise ConfigError(
            "the edges have no weights to draw by; import them with weights, or set sampler.weighted: false"
        )


def _readonly(topology: Topology) -> Topology:
    # Kernels are compiled once per array type, and writable arrays are another type than memory maps.
    indptr, indices = topology.indptr.view(), topology.indices.view()
    indptr.flags.writeable = indices.flags.writeable = False
    weight = None if topology.weight is None else topology.weight.view()
    if weight is not None:
        weight.flags.writeable = False
    return Topology(indptr=indptr, indices=indices, num_src_nodes=topology.num_src_nodes, weight=weight)


def _enter_seeds(labels: LocalIds, seeds: NodeIds, num_nodes: int) -> None:
    outside = (seeds < 0) | (seeds >= num_nodes)
    if outside.any():
        raise NodeIdError(f"seed {seeds[outside][0]} is outside the graph, whose ids are 0 to {num_nodes - 1}")
    local = labels.assign(np.array(seeds, np.int64))
    if labels.count < len(seeds):
        again = int(np.flatnonzero(local != np.arange(len(seeds)))[0])
        raise NodeIdError(f"seed {seeds[again]} comes twice in a batch; seeds must be unique")


def _check_size(key: BatchKey, hop: int, num_edges: int, memory: int | None) -> None:
    what = f"batch {key.batch_id} of epoch {key.epoch} has {num_edges} edges in its first {hop + 1} hops"
    if num_edges > _MAX_LOCAL:
        raise ConfigError(f"{what}, more than {_MAX_LOCAL}; lower sampler.fanouts or sampler.batch_size")
    needed = BYTES_PER_EDGE * num_edges
    if memory is not None and needed > memory:
        raise MemoryBudgetError(
            f"{what} and needs {format_bytes(needed)}, but {format_bytes(memory)} are left for it; "
            f"lower sampler.batch_size or sampler.fanouts, or raise memory"
        )


def _join_indptr(hops: Sequence[_HopEdges]) -> Local:
    indptr = np.zeros(1 + sum(len(hop.indptr) - 1 for hop in hops), np.int32)
    place = 0
    for hop in hops:
        rows = len(hop.indptr) - 1
        indptr[place : place + rows + 1] = hop.indptr + indptr[place]
        place += rows
    return indptr


def _in_degree(graph: Topology, node: NodeIds) -> Local:
    degree = np.empty(len(node), np.int64)
    gather_degrees(graph.indptr, node, degree)
    if degree.size and degree.max() > _MAX_LOCAL:
        raise ConfigError(f"node {node[degree.argmax()]} has {degree.max()} in-edges, more than {_MAX_LOCAL}")
    return degree.astype(np.int32)
