import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import ArrayLike

from graphsys.core.types import Topology
from graphsys.trainers.pipeline.chunks import ChunkTable, count_mirrors


def graph(num_nodes: int, edges: list[tuple[int, int]]) -> Topology:
    """Return the graph of (source, destination) pairs."""
    pairs = sorted(edges, key=lambda edge: (edge[1], edge[0]))
    counts = np.bincount([edge[1] for edge in pairs], minlength=num_nodes)
    return Topology(
        indptr=np.concatenate([[0], counts.cumsum()]).astype(np.int64),
        indices=np.array([edge[0] for edge in pairs], np.int32),
        num_src_nodes=num_nodes,
    )


def by_way(way: ArrayLike, num_ways: int) -> ChunkTable:
    """Return one chunk for each way."""
    return ChunkTable.of(np.asarray(way), ways=num_ways, slots=1)


def test_a_node_is_a_mirror_once_for_each_other_way_that_it_sends_to() -> None:
    # Ways {0, 1}, {2, 3}, {4}: 0 sends to both others, twice to the second; 1 within its own; 4 to 3; nobody to 0.
    edges = [(0, 2), (0, 3), (0, 4), (1, 1), (2, 3), (4, 3), (0, 1)]
    assert count_mirrors(graph(5, edges), by_way([0, 0, 1, 1, 2], 3)) == (0, 2, 1)


def test_ways_need_not_be_ranges_of_ids() -> None:
    ring = [(node, (node + 1) % 6) for node in range(6)]
    assert count_mirrors(graph(6, ring), by_way([0, 1, 0, 1, 0, 1], 2)) == (3, 3)
    assert count_mirrors(graph(6, ring), by_way([0, 0, 0, 1, 1, 1], 2)) == (1, 1)
    assert count_mirrors(graph(6, ring), by_way([0] * 6, 1)) == (0,)


@given(
    edges=st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=40),
    way=arrays(np.int64, 8, elements=st.integers(0, 2)),
)
def test_mirrors_are_the_pairs_of_a_source_and_another_way(edges: list[tuple[int, int]], way: np.ndarray) -> None:
    pairs = {(source, int(way[target])) for source, target in edges if way[source] != way[target]}
    expected = tuple(sum(part == own for _, part in pairs) for own in range(3))
    assert count_mirrors(graph(8, edges), by_way(way, 3)) == expected
