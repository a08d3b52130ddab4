import numpy as np
import xxhash
from helpers.raw_graphs import whole_edges, whole_nodes

from graphsys.trainers.demo_data import digits_source, nearest, stratified_split, symmetric


def test_the_digits_are_the_same_graph_everywhere() -> None:
    source = digits_source()
    nodes, edges = whole_nodes(source.nodes[0]), whole_edges(source.edges[0])
    assert nodes.x is not None
    assert nodes.x.shape == (1797, 64)
    assert nodes.x.dtype == np.float32
    assert (nodes.x.min(), nodes.x.max()) == (0, 1)
    assert nodes.y is not None
    assert nodes.split is not None
    assert np.bincount(nodes.split).tolist() == [0, 1078, 360, 359]
    assert edges.num_rows == 19858
    checksums = [xxhash.xxh3_64(part.tobytes()).hexdigest() for part in (edges.src, edges.dst, nodes.split)]
    assert checksums == ["5143b8d9aeb0d3ec", "746d98e359a6a074", "a7b53c20845867bc"]


def test_every_image_is_joined_to_at_least_its_neighbours_both_ways_and_never_to_itself() -> None:
    edges = whole_edges(digits_source(neighbours=3).edges[0])
    pairs = set(zip(edges.src.tolist(), edges.dst.tolist(), strict=True))
    assert len(pairs) == edges.num_rows
    assert all((dst, src) in pairs and src != dst for src, dst in pairs)
    assert np.bincount(edges.dst, minlength=1797).min() >= 3


def test_nearest_equals_a_search_over_all_pairs_and_ties_go_to_the_lower_row() -> None:
    points = np.random.default_rng(0).integers(0, 4, (300, 3))
    found = nearest(points, 5)
    for row in range(300):
        order = sorted((int(((points[row] - points[other]) ** 2).sum()), other) for other in range(300) if other != row)
        assert found[row].tolist() == [other for _, other in order[:5]]


def test_symmetric_holds_every_edge_and_its_reverse_once() -> None:
    src, dst = symmetric(np.array([[1], [0], [0]]))
    assert list(zip(src.tolist(), dst.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0), (2, 0)]


def test_every_class_is_split_in_the_same_shares() -> None:
    y = np.arange(1000) % 10
    split = stratified_split(y)
    for label in range(10):
        assert np.bincount(split[y == label]).tolist() == [0, 60, 20, 20]
