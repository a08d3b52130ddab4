"""Neighbour sampling: seeds in, one batch's neighbourhood out, the same on any thread or machine."""

from collections.abc import Sequence

import numpy as np

from graphsys.core.errors import InputError
from graphsys.core.types import BatchKey, NodeIds, SampledBatch, Topology
from graphsys.samplers.expansion import Drawing, Expansion, Frontier
from graphsys.samplers.kernels import Ids, Local, pick_neighbors, pick_weighted

SAMPLER_VERSION = 2  # raise it when a key would draw other edges, so that windows of older samples are not used
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
    drawing = Drawing(fanouts=tuple(fanouts), replace=replace, weighted=weighted, with_degree=with_degree)
    return sample_batch(topology, seeds, drawing, key=key, memory=memory)


def sample_batch(
    topology: Topology, seeds: NodeIds, drawing: Drawing, *, key: BatchKey, memory: int | None
) -> SampledBatch:
    """As :func:`sample_neighbors`."""
    batch = Expansion(topology, seeds, drawing, key=key, memory=memory)
    for fanout in drawing.fanouts:
        pick = _pick_weighted if drawing.weighted and fanout >= 0 else _pick
        batch.close_hop(*pick(batch.graph, batch.open_hop()))
    return batch.sampled()


def _pick(graph: Topology, frontier: Frontier) -> tuple[Local, Ids]:
    indptr = np.empty(len(frontier.node) + 1, np.int32)
    picked = np.empty(frontier.kept, graph.indices.dtype)
    most = int(frontier.degree.max(initial=0)) if frontier.fanout < 0 else frontier.fanout
    place = np.empty(min(max(most, _PLACES), frontier.kept), np.int64)
    pick_neighbors(
        graph.indices, frontier.node, frontier.first, frontier.degree, frontier.fanout, frontier.replace, frontier.key,
        place, indptr, picked,
    )  # fmt: skip
    return indptr, picked


def _pick_weighted(graph: Topology, frontier: Frontier) -> tuple[Local, Ids]:
    assert graph.weight is not None, "asked for before the first hop"
    indptr = np.empty(len(frontier.node) + 1, np.int32)
    picked = np.empty(frontier.kept, graph.indices.dtype)
    place = np.empty(min(frontier.fanout, frontier.kept), np.int64)
    reach = np.empty(int(frontier.degree.max(initial=0)), np.float64)
    kept = pick_weighted(
        graph.indices, graph.weight, frontier.node, frontier.first, frontier.degree, frontier.fanout, frontier.replace,
        frontier.key, place, reach, indptr, picked,
    )  # fmt: skip
    if kept < 0:
        raise InputError(
            f"an in-edge of node {frontier.node[-1 - kept]} has a weight that is negative or no number, by which "
            f"nothing can be drawn; correct the weights, or set sampler.weighted: false"
        )
    return indptr, picked[:kept]
