from typing import Any

import numpy as np
import pytest
from helpers.generated import Arrays, generated_arrays

from graphsys.core.errors import ConfigError
from graphsys.storage.community_graph import (
    GenerateSpec,
    community_graph,
    fill_edges,
    fill_features,
    fill_labels,
    fill_split,
)


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return generated_arrays(GenerateSpec(nodes=20_000, edges=200_000, features=32, classes=8, communities=16, seed=3))


def test_any_run_of_edges_equals_the_same_run_of_the_whole(arrays: Arrays) -> None:
    src, dst = np.empty(100, np.int64), np.empty(100, np.int64)
    fill_edges(community_graph(arrays.spec), 777, src, dst)
    assert np.array_equal(src, arrays.src[777:877])
    assert np.array_equal(dst, arrays.dst[777:877])


def test_any_run_of_nodes_equals_the_same_run_of_the_whole(arrays: Arrays) -> None:
    graph = community_graph(arrays.spec)
    y, split, x = np.empty(50, np.int64), np.empty(50, np.uint8), np.empty((50, 32), np.float32)
    fill_labels(graph, 1234, y)
    fill_split(graph, 1234, split)
    fill_features(graph, 1234, y, x)
    assert np.array_equal(y, arrays.y[1234:1284])
    assert np.array_equal(split, arrays.split[1234:1284])
    assert np.array_equal(x, arrays.x[1234:1284])


def test_edges_join_nodes_of_the_graph_and_are_no_self_loops(arrays: Arrays) -> None:
    assert arrays.src.min() >= 0
    assert arrays.dst.min() >= 0
    assert max(arrays.src.max(), arrays.dst.max()) < 20_000
    assert not np.any(arrays.src == arrays.dst)


def test_the_smallest_graph_has_no_self_loop_either() -> None:
    arrays = generated_arrays(GenerateSpec(nodes=2, edges=50, features=1, classes=2, homophily=1.0))
    assert np.array_equal(arrays.src, 1 - arrays.dst)


def test_degrees_are_heavy_tailed(arrays: Arrays) -> None:
    for ends in (arrays.src, arrays.dst):
        degree = np.sort(np.bincount(ends, minlength=20_000))[::-1]
        assert degree[0] > 20 * degree.mean()
        assert degree[:200].sum() > 0.1 * degree.sum()
        assert np.mean(degree == 0) < 0.02
        # P(degree >= d) falls as d**-1.5 for the exponent 2.5: a factor 8 in degree is a factor 22.6 in nodes.
        assert np.sum(degree >= 20) / np.sum(degree >= 160) == pytest.approx(22.6, rel=0.5)


def test_hubs_lie_anywhere_in_the_id_space(arrays: Arrays) -> None:
    hubs = np.argsort(np.bincount(arrays.dst, minlength=20_000))[-400:]
    quarters = np.bincount(hubs // 5000, minlength=4)
    assert quarters.min() > 60


def test_classes_are_balanced_and_their_nodes_share_edges_as_homophily_says(arrays: Arrays) -> None:
    assert np.bincount(arrays.y).tolist() == [2500] * 8
    # Edges between communities find the same class by chance too.
    assert np.mean(arrays.y[arrays.src] == arrays.y[arrays.dst]) == pytest.approx(0.7 + 0.3 / 8, abs=0.02)


def test_split_takes_the_wanted_shares(arrays: Arrays) -> None:
    share = np.bincount(arrays.split, minlength=4) / 20_000
    assert share == pytest.approx([0.1, 0.5, 0.2, 0.2], abs=0.015)


def test_a_mean_over_neighbours_beats_a_node_alone_and_both_beat_chance(arrays: Arrays) -> None:
    mean = np.zeros_like(arrays.x)
    np.add.at(mean, arrays.dst, arrays.x[arrays.src])
    mean /= np.maximum(np.bincount(arrays.dst, minlength=20_000), 1)[:, None]
    alone, together = arrays.nearest_mean_accuracy(arrays.x), arrays.nearest_mean_accuracy(mean)
    assert alone > 2 / 8
    assert together > alone + 0.2


def test_another_seed_gives_another_graph(arrays: Arrays) -> None:
    other = generated_arrays(GenerateSpec(nodes=20_000, edges=1000, features=32, classes=8, communities=16, seed=4))
    assert not np.array_equal(other.src, arrays.src[:1000])
    assert not np.array_equal(other.y, arrays.y)
    assert not np.array_equal(other.x, arrays.x)
    assert not np.array_equal(other.split, arrays.split)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nodes": 1}, "nodes is 1"),
        ({"edges": 0}, "edges is 0"),
        ({"features": 0}, "features is 0"),
        ({"classes": 1}, "classes is 1"),
        ({"seed": -1}, "seed is -1"),
        ({"classes": 30}, "30 communities for 30 classes and 20 nodes"),
        ({"communities": 2}, "2 communities for 4 classes"),
        ({"homophily": 1.5}, "homophily is 1.5"),
        ({"exponent": 2.0}, "exponent is 2.0"),
        ({"signal": float("nan")}, "signal is nan"),
        ({"train": 0.9, "test": 0.3}, "shares of train, val and test"),
    ],
)
def test_a_spec_that_cannot_be_generated_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    values: dict[str, Any] = {"nodes": 20, "edges": 40, "classes": 4, "communities": None, **change}
    with pytest.raises(ConfigError, match=words):
        GenerateSpec(**values)
