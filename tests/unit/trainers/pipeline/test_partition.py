from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.topologies import random_topology, topology_of

from graphsys.core.errors import ConfigError
from graphsys.core.types import Topology
from graphsys.trainers.pipeline.buffers import Buffers
from graphsys.trainers.pipeline.chunks import ChunkTable, count_mirrors, way_graph
from graphsys.trainers.pipeline.partition import NODE_COST, split_graph, symmetrised


def communities(num: int, size: int) -> Topology:
    """Return a graph of ``num`` rings of chords with one edge from each to the next; community of node i: i % num."""
    node = np.arange(num * size)
    src = np.concatenate([node, node, node[:num]])
    dst = np.concatenate([(node + num) % (num * size), (node + 3 * num) % (num * size), (node[:num] + 1) % num])
    return topology_of(src, dst, num * size)


def test_metis_finds_communities_whatever_the_numbers_of_their_nodes() -> None:
    chunk = split_graph(communities(4, 30), ways=1, slots=4, seed=0)
    assert all(np.unique(chunk[np.arange(120) % 4 == part]).size == 1 for part in range(4))
    assert np.unique(chunk).tolist() == [0, 1, 2, 3]


def test_the_same_seed_gives_the_same_chunks_of_like_cost() -> None:
    graph = random_topology(400, 4000, seed=1)
    one, again = (split_graph(graph, ways=2, slots=3, seed=7) for _ in range(2))
    assert np.array_equal(one, again)
    indptr, _ = symmetrised(graph)
    cost = np.bincount(one, weights=np.diff(indptr) + NODE_COST, minlength=6)
    assert cost.max() < 1.3 * cost.mean()


@pytest.mark.parametrize(("ways", "slots"), [(1, 7), (7, 1), (1, 1), (3, 2)])
def test_every_chunk_of_a_tiny_graph_has_a_node(ways: int, slots: int) -> None:
    chunk = split_graph(topology_of([0, 1, 2], [1, 2, 0], 7), ways=ways, slots=slots, seed=0)
    assert np.bincount(chunk, minlength=ways * slots).min() >= 1


def test_more_chunks_than_nodes_are_refused() -> None:
    with pytest.raises(ConfigError, match="8 chunks of a graph of 7 nodes; give at most 7"):
        split_graph(topology_of([0], [1], 7), ways=2, slots=4, seed=0)


def test_a_way_knows_its_in_edges_by_both_ends_and_the_rows_that_it_exchanges() -> None:
    topology = random_topology(50, 300, seed=4)
    chunk = np.arange(50) * 11 % 6
    table = ChunkTable.of(chunk, ways=3, slots=2)
    graphs = [way_graph(topology, table, way) for way in range(3)]
    for graph in graphs:
        rows = np.concatenate([table.nodes_of(graph.way), table.node[graph.mirror_place]])
        found = {(int(rows[s]), int(rows[d])) for d, s in pairs(graph.into.indptr, graph.into.indices)}
        back = {(int(rows[s]), int(rows[d])) for s, d in pairs(graph.out_of.indptr, graph.out_of.indices)}
        mine = chunk // 2 == graph.way
        expected = {(int(s), d) for d in range(50) if mine[d] for s in sources(topology, d)}
        assert found == back == expected
        for slot in range(2):
            for owner in range(3):
                part = rows[graph.mirrors_of(slot, owner)]
                assert (chunk[part] == 2 * owner + slot).all()
                sent = graphs[owner].sends[slot][graph.way].numpy() + graphs[owner].slot_starts[slot]
                assert np.array_equal(part, table.nodes_of(owner)[sent])
    assert tuple(graph.num_rows - graph.num_own for graph in graphs) == count_mirrors(topology, table)


def pairs(indptr: torch.Tensor, indices: torch.Tensor) -> list[tuple[int, int]]:
    counts = indptr.diff()
    return list(zip(torch.arange(counts.shape[0]).repeat_interleave(counts).tolist(), indices.tolist(), strict=True))


def sources(topology: Topology, node: int) -> list[int]:
    found: list[int] = topology.indices[topology.indptr[node] : topology.indptr[node + 1]].tolist()
    return found


def test_rows_beyond_half_the_budget_are_mapped_and_leave_no_file(tmp_path: Path) -> None:
    buffers = Buffers(tmp_path / "rows", 8192, torch.device("cpu"))
    first, second = buffers.allocate("a", (32, 16)), buffers.allocate("b", (64, 16))
    assert buffers.mapped_nbytes == 64 * 16 * 4
    second[3] = 1.0
    assert (float(first.sum()), float(second.sum())) == (0.0, 16.0)
    assert list(tmp_path.iterdir()) == []
