"""Neighbour sampling: seeds in, one batch's neighbourhood out, the same on any thread or machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphsys.core.errors import ConfigError, CorruptError, InputError, MemoryBudgetError, NodeIdError
from graphsys.core.seeding import batch_stream
from graphsys.core.types import BatchKey, NodeIds, SampledBatch, Topology
from graphsys.core.units import format_bytes
from graphsys.samplers.kernels import (
    EMPTY,
    Ids,
    Local,
    fill_table,
    find_columns,
    gather_degrees,
    pick_neighbors,
    pick_weighted,
    relabel,
)
from graphsys.storage.random import draw

BYTES_PER_EDGE = 56  # upper bound of a call's peak; 35 is usual, 56 where most edges reach a node of their own
SAMPLER_VERSION = 2  # raise it when a key would draw other edges, so that windows of older samples are not used
_MAX_LOCAL = np.iinfo(np.int32).max
_PLACES = 1024  # edges whose places are drawn before they are read; all their reads are on their way at once


def sample_neighbors(
    topology: Topology,
    seeds: NodeIds,
    fanouts: Sequence[int],
    *,
    key: BatchKey,
    replace: bool = False,
    weighted: bool = False,
    with_degree: bool = False,
    memory: int | None = None,
) -> SampledBatch:
    """Sample up to ``fanouts[l]`` in-edges of every node first reached in hop ``l``.

    The result depends on the arguments only, never on thread count or call order, so any batch can be made again alone.
    A node is expanded once, in the hop after it was first reached. Parallel edges count as edges of their own. Edges of
    a node stand in the order in which they were drawn, and in that of the graph where all are kept.

    Args:
        topology: Edges of one node type to itself; the arrays may be memory maps.
        seeds: [B] int64 global ids, unique.
        fanouts: in-edges to keep per node, one entry per hop (L); -1 keeps all.
        key: What the draws depend on, beside the node ids; gives the batch its epoch and id.
        replace: Draw ``fanouts[l]`` edges of every node that has one; an edge may be drawn again.
        weighted: Draw edges in proportion to ``topology.weight``; those of weight zero never. Without replacement they
            are drawn one after the other from those that are left. A fanout of -1 keeps all, whatever they weigh.
        with_degree: Also report every node's in-degree in the whole graph.
        memory: Most bytes that the call may allocate; None: no limit.

    Raises:
        NodeIdError: A seed is outside [0, topology.num_nodes), or comes twice.
        ConfigError: A fanout is below -1, the batch has 2**31 edges or more, or the edges have no weights to draw by.
        InputError: A weight to draw by is negative or no number.
        MemoryBudgetError: The batch does not fit ``memory``.
        CorruptError: The topology names nodes or edges that it does not have.

    Cost:
        O(E) time; 35 bytes of memory per sampled edge as a rule, 56 where most edges reach a node of their own.
        Weighted: every in-edge of an expanded node is looked at; 8 bytes per in-edge of the largest node.

    Source:
        Hamilton, Ying, Leskovec 2017, algorithm 2 (arXiv:1706.02216).
    """
    _check_fanouts(fanouts)
    graph = _readonly(topology)
    if weighted and graph.weight is None:
        raise ConfigError(
            "the edges have no weights to draw by; import them with weights, or set sampler.weighted: false"
        )
    labels = _LocalIds(graph.num_nodes, len(seeds))
    _enter_seeds(labels, seeds, graph.num_nodes)
    num_nodes, hops, num_edges = [labels.count], [], 0
    stream = np.uint64(batch_stream(key))
    for hop, fanout in enumerate(fanouts):
        frontier = labels.node[labels.count - num_nodes[-1] : labels.count]
        draws = _Draws(fanout=fanout, replace=replace, weighted=weighted, key=np.uint64(draw(stream, np.uint64(hop))))
        columns = _columns(graph, frontier, draws)
        num_edges += columns.kept
        _check_size(key, hop, num_edges, memory)
        hops.append(_expand(graph, labels, frontier, columns, draws))
        num_nodes.append(labels.count - sum(num_nodes))
    node = labels.node[: labels.count].copy()
    return SampledBatch(
        epoch=key.epoch,
        batch_id=key.batch_id,
        node=node,
        indptr=_join_indptr(hops),
        indices=np.concatenate([np.empty(0, np.int32), *(hop.local for hop in hops)]),
        num_sampled_nodes=tuple(num_nodes),
        num_sampled_edges=tuple(len(hop.local) for hop in hops),
        in_degree=_in_degree(graph, node) if with_degree else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draws:
    """How the in-edges of one hop are drawn."""

    fanout: int  # -1: all
    replace: bool
    weighted: bool
    key: np.uint64  # of the batch and the hop


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Where the in-edges of a frontier lie."""

    first: NodeIds  # [F] place in topology.indices
    degree: NodeIds  # [F]
    kept: int  # most edges to sample; fewer where edges of weight zero are left out


@dataclass(frozen=True, slots=True, kw_only=True)
class _HopEdges:
    """The sampled edges of one hop."""

    indptr: Local  # [F + 1] starts at 0
    local: Local  # [kept] local source ids


class _LocalIds:
    """Gives global ids local ones in the order in which they come; an open-addressing table that grows by doubling."""

    def __init__(self, num_nodes: int, expected: int) -> None:
        self.num_nodes = num_nodes
        self.node: NodeIds = np.empty(0, np.int64)  # [>= count] global id of each local id
        self.count = 0
        self._set_table(max(4 * expected, 64).bit_length())

    def _set_table(self, bits: int) -> None:
        self._bits = bits
        self._table = np.empty(0, np.uint64)  # let go of before a larger one is made
        self._table = np.full(1 << bits, EMPTY, np.uint64)

    def assign(self, ids: Ids) -> Local:
        """Return the local ids [C] of global ``ids`` [C], which it may overwrite.

        Raises:
            CorruptError: An id is outside the graph.
        """
        self._reserve(min(self.count + len(ids), self.num_nodes))
        local = ids.view(np.int32) if ids.dtype == np.int32 else np.empty(len(ids), np.int32)
        done = 0
        while True:
            done, self.count = relabel(
                ids, done, self.num_nodes, self.node, self.count, self._table, np.uint64(64 - self._bits), local
            )
            if done < 0:
                raise CorruptError(
                    f"the topology is corrupt: an edge comes from node {ids[-1 - done]}, but there are "
                    f"{self.num_nodes} nodes. Run `graphsys verify` on the store"
                )
            if done == len(ids):
                return local
            self._set_table(self._bits + 1)
            fill_table(self.node[: self.count], self._table, np.uint64(64 - self._bits))

    def _reserve(self, size: int) -> None:
        if size > len(self.node):
            # Pages that are never touched cost no memory, so the bound may be generous.
            node = np.empty(size, np.int64)
            node[: self.count] = self.node[: self.count]
            self.node = node


def _check_fanouts(fanouts: Sequence[int]) -> None:
    for fanout in fanouts:
        if fanout < -1:
            raise ConfigError(f"a fanout is {fanout}; give a number of neighbours, or -1 for all")


def _readonly(topology: Topology) -> Topology:
    # Kernels are compiled once per array type, and writable arrays are another type than memory maps.
    indptr, indices = topology.indptr.view(), topology.indices.view()
    indptr.flags.writeable = indices.flags.writeable = False
    weight = None if topology.weight is None else topology.weight.view()
    if weight is not None:
        weight.flags.writeable = False
    return Topology(indptr=indptr, indices=indices, num_src_nodes=topology.num_src_nodes, weight=weight)


def _enter_seeds(labels: _LocalIds, seeds: NodeIds, num_nodes: int) -> None:
    outside = (seeds < 0) | (seeds >= num_nodes)
    if outside.any():
        raise NodeIdError(f"seed {seeds[outside][0]} is outside the graph, whose ids are 0 to {num_nodes - 1}")
    local = labels.assign(np.array(seeds, np.int64))
    if labels.count < len(seeds):
        again = int(np.flatnonzero(local != np.arange(len(seeds)))[0])
        raise NodeIdError(f"seed {seeds[again]} comes twice in a batch; seeds must be unique")


def _columns(graph: Topology, frontier: NodeIds, draws: _Draws) -> _Columns:
    first, degree = np.empty(len(frontier), np.int64), np.empty(len(frontier), np.int64)
    kept = find_columns(graph.indptr, graph.num_edges, frontier, draws.fanout, draws.replace, first, degree)
    if kept < 0:
        raise CorruptError(
            f"the topology is corrupt: the in-edges of node {frontier[-1 - kept]} lie outside its {graph.num_edges} "
            f"edges. Run `graphsys verify` on the store"
        )
    return _Columns(first=first, degree=degree, kept=kept)


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


def _expand(graph: Topology, labels: _LocalIds, frontier: NodeIds, columns: _Columns, draws: _Draws) -> _HopEdges:
    indptr = np.empty(len(frontier) + 1, np.int32)
    picked = np.empty(columns.kept, graph.indices.dtype)
    if draws.weighted and draws.fanout >= 0:
        picked = _pick_weighted(graph, frontier, columns, draws, indptr, picked)
    else:
        most = int(columns.degree.max(initial=0)) if draws.fanout < 0 else draws.fanout
        place = np.empty(min(max(most, _PLACES), columns.kept), np.int64)
        pick_neighbors(
            graph.indices, frontier, columns.first, columns.degree, draws.fanout, draws.replace, draws.key,
            place, indptr, picked,
        )  # fmt: skip
    return _HopEdges(indptr=indptr, local=labels.assign(picked))


def _pick_weighted(
    graph: Topology, frontier: NodeIds, columns: _Columns, draws: _Draws, indptr: Local, picked: Ids
) -> Ids:
    assert graph.weight is not None, "asked for before the first hop"
    place = np.empty(min(draws.fanout, columns.kept), np.int64)
    reach = np.empty(int(columns.degree.max(initial=0)), np.float64)
    kept = pick_weighted(
        graph.indices, graph.weight, frontier, columns.first, columns.degree, draws.fanout, draws.replace, draws.key,
        place, reach, indptr, picked,
    )  # fmt: skip
    if kept < 0:
        raise InputError(
            f"an in-edge of node {frontier[-1 - kept]} has a weight that is negative or no number, by which nothing "
            f"can be drawn; correct the weights, or set sampler.weighted: false"
        )
    return picked[:kept]


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
