"""What neighbour sampling promises, on any graph."""

import numpy as np
from helpers.reference_sampler import reference_sample, same_batch
from helpers.topologies import keys, topologies_with_seeds, weighted_topologies_with_seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.types import BatchKey, NodeIds, SampledBatch, Topology
from graphsys.samplers.neighbor import sample_neighbors

Graph = tuple[Topology, NodeIds]
FANOUTS = st.lists(st.integers(-1, 6), max_size=3)
EXAMPLES = settings(deadline=None, max_examples=150)


def _edges(batch: SampledBatch) -> list[tuple[int, int]]:
    """Return (source, destination) global ids of all sampled edges."""
    destination = np.repeat(np.arange(len(batch.indptr) - 1), np.diff(batch.indptr))
    return list(zip(batch.node[batch.indices].tolist(), batch.node[destination].tolist(), strict=True))


def _in_edges(topology: Topology, node: int) -> list[int]:
    return [int(source) for source in topology.indices[topology.indptr[node] : topology.indptr[node + 1]]]


@EXAMPLES
@given(
    graph=weighted_topologies_with_seeds(),
    key=keys(),
    fanouts=FANOUTS,
    replace=st.booleans(),
    weighted=st.booleans(),
    with_degree=st.booleans(),
)
def test_the_sample_equals_the_reference_bit_for_bit(
    graph: Graph, key: BatchKey, fanouts: list[int], replace: bool, weighted: bool, with_degree: bool
) -> None:
    fast = sample_neighbors(*graph, fanouts, key=key, replace=replace, weighted=weighted, with_degree=with_degree)
    slow = reference_sample(*graph, fanouts, key=key, replace=replace, weighted=weighted, with_degree=with_degree)
    assert same_batch(fast, slow)


@EXAMPLES
@given(graph=weighted_topologies_with_seeds(), key=keys(), fanouts=FANOUTS)
def test_weighted_sampling_without_replacement_keeps_what_weighs_and_each_edge_once(
    graph: Graph, key: BatchKey, fanouts: list[int]
) -> None:
    topology, seeds = graph
    assert topology.weight is not None
    batch = sample_neighbors(topology, seeds, fanouts, key=key, weighted=True)
    hop_of = np.repeat(np.arange(len(fanouts)), batch.num_sampled_nodes[:-1])
    for row, (node, hop) in enumerate(zip(batch.node, hop_of, strict=False)):
        edges = slice(topology.indptr[node], topology.indptr[node + 1])
        weighing = topology.indices[edges][topology.weight[edges] > 0].tolist()
        kept = batch.node[batch.indices[batch.indptr[row] : batch.indptr[row + 1]]].tolist()
        if fanouts[hop] >= 0:
            assert len(kept) == min(fanouts[hop], len(weighing))
            assert all(kept.count(source) <= weighing.count(source) for source in kept)


@EXAMPLES
@given(graph=topologies_with_seeds(), key=keys(), fanouts=FANOUTS)
def test_with_replacement_every_node_that_has_edges_keeps_as_many_as_asked(
    graph: Graph, key: BatchKey, fanouts: list[int]
) -> None:
    topology, seeds = graph
    batch = sample_neighbors(topology, seeds, fanouts, key=key, replace=True)
    hop_of = np.repeat(np.arange(len(fanouts)), batch.num_sampled_nodes[:-1])
    for node, hop, kept in zip(batch.node, hop_of, np.diff(batch.indptr), strict=False):
        degree = len(_in_edges(topology, node))
        assert kept == (degree if fanouts[hop] < 0 or degree == 0 else fanouts[hop])


@EXAMPLES
@given(graph=topologies_with_seeds(), key=keys(), fanouts=FANOUTS)
def test_every_sampled_edge_is_an_edge_of_the_graph_as_often_as_there(
    graph: Graph, key: BatchKey, fanouts: list[int]
) -> None:
    topology, seeds = graph
    edges = _edges(sample_neighbors(topology, seeds, fanouts, key=key))
    for source, destination in set(edges):
        assert edges.count((source, destination)) <= _in_edges(topology, destination).count(source)


@EXAMPLES
@given(graph=topologies_with_seeds(), key=keys(), fanouts=FANOUTS)
def test_nodes_are_distinct_and_each_is_expanded_once_by_its_hop(
    graph: Graph, key: BatchKey, fanouts: list[int]
) -> None:
    topology, seeds = graph
    batch = sample_neighbors(topology, seeds, fanouts, key=key)
    assert len(set(batch.node.tolist())) == batch.num_nodes == sum(batch.num_sampled_nodes)
    assert batch.node[: len(seeds)].tolist() == seeds.tolist()
    kept = np.diff(batch.indptr)
    hop_of = np.repeat(np.arange(len(fanouts)), batch.num_sampled_nodes[:-1])
    for node, hop, edges in zip(batch.node, hop_of, kept, strict=False):
        degree = len(_in_edges(topology, node))
        assert edges == (degree if fanouts[hop] < 0 else min(degree, fanouts[hop]))


@EXAMPLES
@given(graph=topologies_with_seeds(), key=keys(), num_hops=st.integers(0, 4))
def test_keeping_all_gives_the_exact_neighbourhood(graph: Graph, key: BatchKey, num_hops: int) -> None:
    topology, seeds = graph
    batch = sample_neighbors(topology, seeds, [-1] * num_hops, key=key)
    reached, frontier, edges = set(seeds.tolist()), set(seeds.tolist()), []
    for _ in range(num_hops):
        edges += [(source, node) for node in frontier for source in _in_edges(topology, node)]
        frontier = {source for node in frontier for source in _in_edges(topology, node)} - reached
        reached |= frontier
    assert set(batch.node.tolist()) == reached
    assert sorted(_edges(batch)) == sorted(edges)


@EXAMPLES
@given(graph=topologies_with_seeds(), key=keys(), fanouts=FANOUTS)
def test_what_a_node_keeps_does_not_depend_on_the_order_of_the_seeds(
    graph: Graph, key: BatchKey, fanouts: list[int]
) -> None:
    topology, seeds = graph
    forward = sample_neighbors(topology, seeds, fanouts, key=key)
    backward = sample_neighbors(topology, seeds[::-1], fanouts, key=key)
    assert sorted(_edges(forward)) == sorted(_edges(backward))
    assert forward.num_sampled_nodes == backward.num_sampled_nodes


@EXAMPLES
@given(graph=topologies_with_seeds(), key=keys(), fanouts=FANOUTS)
def test_hops_are_nested_prefixes_that_hold_their_sources(graph: Graph, key: BatchKey, fanouts: list[int]) -> None:
    batch = sample_neighbors(*graph, fanouts, key=key)
    for depth, hop in enumerate(batch.hops, start=1):
        assert hop.num_dst == sum(batch.num_sampled_nodes[:depth])
        assert hop.indptr[-1] == len(hop.indices) == sum(batch.num_sampled_edges[:depth])
        assert not len(hop.indices) or hop.indices.max() < hop.num_src
