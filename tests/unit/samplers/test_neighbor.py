import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from helpers.reference_sampler import reference_positions, reference_sample, same_batch
from helpers.topologies import IdType, random_topology, topology_of, with_weights

from graphsys.core.errors import ConfigError, CorruptError, InputError, MemoryBudgetError, NodeIdError
from graphsys.core.types import BatchKey, NodeIds, SampledBatch, Topology
from graphsys.samplers.choice import choose_positions
from graphsys.samplers.expansion import BYTES_PER_EDGE
from graphsys.samplers.kernels import EMPTY, relabel
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.storage.flat import FlatArray, write_array

KEY = BatchKey(seed=7, epoch=3, batch_id=11)
GRAPH = random_topology(500, 20_000)


def ids(*node: int) -> NodeIds:
    return np.array(node, np.int64)


def star(num_leaves: int) -> Topology:
    """Node 0 has an in-edge from each of the nodes 1 to ``num_leaves``; they have none."""
    return topology_of(np.arange(1, num_leaves + 1), np.zeros(num_leaves, np.int64), num_leaves + 1)


def key(batch_id: int) -> BatchKey:
    return BatchKey(seed=1, epoch=0, batch_id=batch_id)


def chi_square(counts: NodeIds) -> float:
    """Return the statistic of counts that should be equal, in standard deviations from its mean."""
    expected = counts.sum() / len(counts)
    freedom = len(counts) - 1
    return float((((counts - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def test_seeds_come_first_then_each_hop_in_the_order_in_which_it_was_reached() -> None:
    chain = topology_of([1, 2, 3], [0, 1, 2], 5)
    batch = sample_neighbors(chain, ids(4, 0), [2, 2], key=KEY)
    assert batch.node.tolist() == [4, 0, 1, 2]
    assert batch.num_sampled_nodes == (2, 1, 1)
    assert batch.num_sampled_edges == (1, 1)
    assert batch.indptr.tolist() == [0, 0, 1, 2]
    assert batch.indices.tolist() == [2, 3]
    assert (batch.epoch, batch.batch_id) == (KEY.epoch, KEY.batch_id)


def test_self_loops_and_parallel_edges_are_edges_of_their_own() -> None:
    topology = topology_of([0, 0, 1, 1, 1], [0, 1, 0, 0, 0], 2)
    batch = sample_neighbors(topology, ids(0), [-1, -1], key=KEY)
    assert batch.node.tolist() == [0, 1]
    assert batch.indices.tolist() == [0, 1, 1, 1, 0]
    assert batch.num_sampled_edges == (4, 1)


def test_edges_that_are_all_kept_stay_in_the_order_of_the_graph() -> None:
    batch = sample_neighbors(GRAPH, ids(0, 1, 2), [-1], key=KEY)
    sources = batch.node[batch.indices]
    for begin, end in zip(batch.indptr[:-1], batch.indptr[1:], strict=True):
        assert (np.diff(sources[begin:end]) >= 0).all()


@pytest.mark.parametrize(("degree", "kept"), [(40, 3), (12, 6), (12, 7), (40, 39), (1000, 170), (1000, 190), (2, 1)])
def test_positions_equal_the_reference(degree: int, kept: int) -> None:
    for batch in range(50):
        chosen = np.empty(kept, np.int64)
        choose_positions(np.uint64(batch * 977), degree, chosen)
        assert chosen.tolist() == reference_positions(batch * 977, degree, kept)
        assert len(set(chosen.tolist())) == kept


@pytest.mark.parametrize(("degree", "fanout"), [(100, 5), (20, 10), (12, 1)])
def test_every_edge_is_kept_equally_often(degree: int, fanout: int) -> None:
    counts = np.zeros(degree, np.int64)
    topology = star(degree)
    for batch_id in range(4000):
        batch = sample_neighbors(topology, ids(0), [fanout], key=key(batch_id))
        counts[batch.node[1:] - 1] += 1
    # The cells of one draw are not independent, which lowers the statistic; five deviations are never chance.
    assert counts.sum() == 4000 * fanout
    assert chi_square(counts) < 5


@pytest.mark.parametrize(("degree", "fanout"), [(7, 2), (6, 5)])
def test_every_subset_of_edges_is_equally_likely(degree: int, fanout: int) -> None:
    topology = star(degree)
    found: dict[tuple[int, ...], int] = {}
    for batch_id in range(6000):
        subset = tuple(sorted(sample_neighbors(topology, ids(0), [fanout], key=key(batch_id)).node[1:].tolist()))
        found[subset] = found.get(subset, 0) + 1
    counts = np.array(list(found.values()))
    assert len(counts) == {(7, 2): 21, (6, 5): 6}[degree, fanout]
    assert abs(chi_square(counts)) < 5


@pytest.mark.parametrize("degree", [3, 50])
def test_with_replacement_every_edge_is_drawn_equally_often(degree: int) -> None:
    counts = np.zeros(degree, np.int64)
    for batch_id in range(4000):
        batch = sample_neighbors(star(degree), ids(0), [6], key=key(batch_id), replace=True)
        counts += np.bincount(batch.node[batch.indices] - 1, minlength=degree)
    assert counts.sum() == 4000 * 6
    assert abs(chi_square(counts)) < 5


def test_with_replacement_edges_are_drawn_in_proportion_to_their_weights() -> None:
    weight = np.array([0.5, 0, 2, 1, 4], np.float32)
    counts = np.zeros(5, np.int64)
    for batch_id in range(4000):
        batch = sample_neighbors(
            with_weights(star(5), weight), ids(0), [3], key=key(batch_id), replace=True, weighted=True
        )
        counts += np.bincount(batch.node[batch.indices] - 1, minlength=5)
    assert counts[1] == 0
    expected = 12_000 * weight / weight.sum()
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected + 1)).all()


def test_without_replacement_weighted_draws_follow_one_another() -> None:
    """The chance of drawing i, then j is w_i / W * w_j / (W - w_i)."""
    weight = np.array([1, 2, 7], np.float32)
    counts = np.zeros((3, 3), np.int64)
    for batch_id in range(6000):
        batch = sample_neighbors(with_weights(star(3), weight), ids(0), [2], key=key(batch_id), weighted=True)
        first, second = batch.node[batch.indices] - 1
        counts[first, second] += 1
    chance = weight[:, None] / 10 * weight / (10 - weight[:, None])
    np.fill_diagonal(chance, 0)
    assert (np.abs(counts - 6000 * chance) < 5 * np.sqrt(6000 * chance + 1)).all()
    assert not counts.diagonal().any()


def test_one_edge_with_nearly_all_the_weight_does_not_hold_up_the_others() -> None:
    weight = np.full(200, 1e-20, np.float32)
    weight[77] = 1e20
    batch = sample_neighbors(with_weights(star(200), weight), ids(0), [150], key=KEY, weighted=True)
    assert batch.num_edges == len(set(batch.node.tolist())) - 1 == 150


def test_drawing_by_weights_needs_weights() -> None:
    with pytest.raises(ConfigError, match="the edges have no weights to draw by"):
        sample_neighbors(GRAPH, ids(1), [3], key=KEY, weighted=True)


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_a_weight_that_cannot_be_drawn_by_is_refused_with_its_node(wrong: float) -> None:
    with pytest.raises(InputError, match="an in-edge of node 0 has a weight that is negative or no number"):
        sample_neighbors(with_weights(star(4), [1, 1, wrong, 1]), ids(0), [2], key=KEY, weighted=True)


def test_ids_of_more_than_32_bits_are_told_apart() -> None:
    """Two ids with the same lower half: the hash table holds halves only."""
    wide = (1 << 32) + 5
    table, node = np.full(64, EMPTY, np.uint64), np.empty(8, np.int64)
    found = np.empty(5, np.int32)
    asked = np.array([5, wide, 5, wide, 2 * (1 << 32) + 5], np.int64)
    shift = np.uint64(63)  # two slots only, so that they are compared
    assert relabel(asked, 0, 1 << 40, node, 0, table, shift, found) == (5, 3)
    assert found.tolist() == [0, 1, 0, 1, 2]
    assert node[:3].tolist() == [5, wide, 2 * (1 << 32) + 5]


def test_two_nodes_of_a_batch_draw_independently() -> None:
    topology = topology_of(np.tile(np.arange(2, 6), 2), np.repeat([0, 1], 4), 6)
    pairs = np.zeros((4, 4), np.int64)
    for batch_id in range(6000):
        batch = sample_neighbors(topology, ids(0, 1), [1], key=key(batch_id))
        first, second = batch.node[batch.indices] - 2
        pairs[first, second] += 1
    assert abs(chi_square(pairs.reshape(-1))) < 5


@pytest.mark.parametrize(
    "other", [BatchKey(seed=8, epoch=3, batch_id=11), BatchKey(seed=7, epoch=4, batch_id=11), key(11)]
)
def test_another_key_gives_another_sample(other: BatchKey) -> None:
    first = sample_neighbors(GRAPH, ids(0, 1, 2), [5, 5], key=KEY)
    second = sample_neighbors(GRAPH, ids(0, 1, 2), [5, 5], key=other)
    assert not np.array_equal(first.node, second.node)


def test_threads_and_call_order_do_not_change_a_batch() -> None:
    def sample(batch_id: int) -> tuple[int, SampledBatch]:
        return batch_id, sample_neighbors(GRAPH, ids(*range(batch_id, batch_id + 30)), [5, 4, 3], key=key(batch_id))

    alone = dict(map(sample, range(40)))
    order = random.Random(0).sample(range(40), 40)
    with ThreadPoolExecutor(2) as pool:
        together = dict(pool.map(sample, order))
    assert all(same_batch(alone[batch_id], together[batch_id]) for batch_id in range(40))


def test_memory_maps_and_wide_ids_give_the_same_batch(tmp_path: Path) -> None:
    expected = sample_neighbors(GRAPH, ids(3, 1, 400), [6, 6], key=KEY, with_degree=True)
    for name, indices in (("narrow", GRAPH.indices), ("wide", GRAPH.indices.astype(np.int64))):
        maps = {}
        for field, array in (("indptr", GRAPH.indptr), ("indices", indices)):
            folder = tmp_path / name / field
            maps[field] = FlatArray(folder, write_array(folder, array)).memmap()
        mapped = Topology(**maps, num_src_nodes=GRAPH.num_src_nodes)
        assert same_batch(sample_neighbors(mapped, ids(3, 1, 400), [6, 6], key=KEY, with_degree=True), expected)


def test_a_large_batch_that_makes_the_hash_table_grow_equals_the_reference() -> None:
    topology = random_topology(30_000, 120_000, seed=5)
    seeds = np.arange(0, 30_000, 500)
    fast = sample_neighbors(topology, seeds, [10, 10, 10], key=KEY)
    assert fast.num_nodes > 5000
    assert same_batch(fast, reference_sample(topology, seeds, [10, 10, 10], key=KEY))


def test_degrees_are_those_of_the_whole_graph_and_absent_unless_asked_for() -> None:
    batch = sample_neighbors(GRAPH, ids(0, 9), [2, 2], key=KEY, with_degree=True)
    assert batch.in_degree is not None
    assert batch.in_degree.tolist() == np.diff(GRAPH.indptr)[batch.node].tolist()
    assert sample_neighbors(GRAPH, ids(0, 9), [2, 2], key=KEY).in_degree is None


def test_no_seeds_or_no_hops_give_an_empty_neighbourhood() -> None:
    assert sample_neighbors(GRAPH, ids(), [3, 3], key=KEY).num_sampled_nodes == (0, 0, 0)
    alone = sample_neighbors(GRAPH, ids(5, 6), [], key=KEY)
    assert alone.node.tolist() == [5, 6]
    assert alone.indptr.tolist() == [0]
    assert alone.hops == ()


@pytest.mark.parametrize("seed", [-1, 500, 1 << 40])
def test_a_seed_outside_the_graph_is_named(seed: int) -> None:
    with pytest.raises(NodeIdError, match=f"seed {seed} is outside the graph, whose ids are 0 to 499"):
        sample_neighbors(GRAPH, ids(3, seed), [2], key=KEY)


def test_a_repeated_seed_is_named() -> None:
    with pytest.raises(NodeIdError, match="seed 12 comes twice"):
        sample_neighbors(GRAPH, ids(3, 12, 4, 12), [2], key=KEY)


def test_a_fanout_below_minus_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="a fanout is -2"):
        sample_neighbors(GRAPH, ids(1), [3, -2], key=KEY)


def test_more_edges_than_local_ids_can_count_are_refused_before_memory_is_taken() -> None:
    edges = (1 << 31) + 8
    endless = Topology(
        indptr=np.array([0, edges], np.int64), indices=np.broadcast_to(np.int32(0), (edges,)), num_src_nodes=1
    )
    with pytest.raises(ConfigError, match=r"2147483656 edges in its first 1 hops, more than 2147483647; lower"):
        sample_neighbors(endless, ids(0), [-1], key=KEY)


def test_a_batch_beyond_its_memory_is_refused() -> None:
    with pytest.raises(MemoryBudgetError, match=r"batch 11 of epoch 3 .* lower sampler.batch_size"):
        sample_neighbors(GRAPH, np.arange(500), [-1], key=KEY, memory=10_000)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_a_batch_takes_no_more_memory_than_said(dtype: IdType) -> None:
    topology = random_topology(200_000, 400_000, seed=2, dtype=dtype)  # few edges repeat a node: the worst case
    sample_neighbors(topology, ids(0), [1], key=KEY)
    tracemalloc.start()
    batch = sample_neighbors(topology, np.arange(0, 200_000, 20), [3, 3, 3], key=KEY)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < BYTES_PER_EDGE * batch.num_edges + 64 * batch.batch_size


def test_an_edge_from_nowhere_is_an_error_not_a_crash() -> None:
    broken = Topology(indptr=np.array([0, 1, 1]), indices=np.array([9], np.int32), num_src_nodes=2)
    with pytest.raises(CorruptError, match="comes from node 9, but there are 2 nodes"):
        sample_neighbors(broken, ids(0), [1], key=KEY)


def test_edges_beyond_the_file_are_an_error_not_a_crash() -> None:
    broken = Topology(indptr=np.array([0, 5, 5]), indices=np.array([1], np.int32), num_src_nodes=2)
    with pytest.raises(CorruptError, match="the in-edges of node 0 lie outside"):
        sample_neighbors(broken, ids(0), [1], key=KEY)
