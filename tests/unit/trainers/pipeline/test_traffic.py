import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphsys.core.types import Topology
from graphsys.trainers.pipeline.traffic import (
    count_mirrors,
    forecast_traffic,
    graph_parallel_nbytes,
    pipeline_nbytes,
    reduce_nbytes,
)


def graph(num_nodes: int, edges: list[tuple[int, int]]) -> Topology:
    """Return the graph of (source, destination) pairs."""
    pairs = sorted(edges, key=lambda edge: (edge[1], edge[0]))
    counts = np.bincount([edge[1] for edge in pairs], minlength=num_nodes)
    return Topology(
        indptr=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        indices=np.array([edge[0] for edge in pairs], np.int32),
        num_src_nodes=num_nodes,
    )


def test_a_node_is_a_mirror_once_for_each_other_way_that_it_sends_to() -> None:
    # Ways {0, 1}, {2, 3}, {4}: 0 sends to both others, twice to the second; 1 within its own; 4 to 3; nobody to 0.
    edges = [(0, 2), (0, 3), (0, 4), (1, 1), (2, 3), (4, 3), (0, 1)]
    assert count_mirrors(graph(5, edges), np.array([0, 0, 1, 1, 2]), 3) == (0, 2, 1)


def test_ways_need_not_be_ranges_of_ids() -> None:
    ring = [(node, (node + 1) % 6) for node in range(6)]
    assert count_mirrors(graph(6, ring), np.array([0, 1, 0, 1, 0, 1]), 2) == (3, 3)
    assert count_mirrors(graph(6, ring), np.array([0, 0, 0, 1, 1, 1]), 2) == (1, 1)
    assert count_mirrors(graph(6, ring), np.zeros(6, np.int64), 1) == (0,)


@given(
    edges=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40),
    way=arrays(np.int64, 8, elements=st.integers(0, 2)),
)
def test_mirrors_are_the_pairs_of_a_source_and_another_way(edges: list[tuple[int, int]], way: np.ndarray) -> None:
    pairs = {(source, int(way[target])) for source, target in edges if way[source] != way[target]}
    expected = tuple(sum(part == own for _, part in pairs) for own in range(3))
    assert count_mirrors(graph(8, edges), way, 3) == expected


def test_a_pipeline_sends_every_row_over_every_boundary_forward_and_back() -> None:
    # 10 nodes, 3 boundaries, 4 + 2 columns, 4 bytes, both directions.
    assert pipeline_nbytes(10, 4, 6) == 2 * 3 * 10 * 6 * 4
    assert pipeline_nbytes(10, 1, 6) == 0


def test_graph_parallelism_sends_every_mirrors_message_in_every_layer_forward_and_back() -> None:
    assert graph_parallel_nbytes(5, [7, 3, 3], itemsize=2) == 2 * 5 * 13 * 2
    assert graph_parallel_nbytes(0, [7, 3, 3]) == 0


def test_sums_of_weights_go_round_the_ways() -> None:
    assert reduce_nbytes(100, 1) == 0
    assert reduce_nbytes(100, 4) == 2 * 3 * 100 * 4


def test_a_hybrid_sends_both_and_counts_the_weights_apart() -> None:
    found = forecast_traffic(
        num_nodes=10, stages=2, mirrors=3, ways=2, row_channels=6, message_channels=[4, 4, 4, 4], weights=50
    )
    assert found.as_dict() == {"boundary": 480, "exchange": 384, "reduce": 400, "total": 864}


def test_the_papers_ratio_on_reddit_follows_from_its_bytes() -> None:
    # 8 stages, 32 layers of 100 columns and as many shared: 2.43 GiB is what the paper reports.
    assert pipeline_nbytes(232_965, 8, 200) / 2**30 == pytest.approx(2.43, abs=0.005)
