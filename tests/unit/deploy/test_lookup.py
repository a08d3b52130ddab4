import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.tables import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.errors import InputError
from graphsys.deploy import lookup
from graphsys.deploy.lookup import Metric, neighbours, search

METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")
METRIC = pytest.mark.parametrize("metric", METRICS)


def line(rows: int = 20) -> npt.NDArray[np.float32]:
    """Row i is the point (i, 1)."""
    return np.stack([np.arange(rows), np.ones(rows)], axis=1).astype(np.float32)


def brute_force(
    vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float64], metric: Metric
) -> npt.NDArray[np.float64]:
    """Return nearness [Q, N] in float64: larger is nearer."""
    near = np.zeros((len(queries), len(vectors)))
    for index, query in enumerate(queries):
        for node, row in enumerate(vectors.astype(np.float64)):
            lengths = float(np.linalg.norm(query) * np.linalg.norm(row)) if metric == "cosine" else 1.0
            if metric == "l2":
                near[index, node] = -np.linalg.norm(query - row)
            elif lengths > 0:
                near[index, node] = query @ row / lengths
    return near


@METRIC
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 60),
    k=st.integers(1, 70),
    num_queries=st.integers(1, 4),
    block=st.sampled_from([1, 64, 1 << 20]),
)
@settings(deadline=None, max_examples=20)
def test_the_answer_is_that_of_brute_force(
    metric: Metric, seed: int, rows: int, k: int, num_queries: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    # Small integers: scores are exact, so ties are real ties and must break by node id.
    vectors = rng.integers(-2, 3, (rows, 3)).astype(np.float32)
    queries = rng.integers(-2, 3, (num_queries, 3)).astype(np.float64)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "_BLOCK_BYTES", block)
        scores, nodes = search(make_table(Path(folder), vectors), queries, k, metric=metric)
    near = brute_force(vectors, queries, metric)
    order = np.argsort(-near.round(12), axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(near, order, axis=1)
    np.testing.assert_allclose(scores, -expected if metric == "l2" else expected, rtol=1e-6, atol=1e-7)
    if metric == "cosine":  # parallel vectors of different lengths differ by rounding
        np.testing.assert_allclose(np.take_along_axis(near, nodes, axis=1), expected, atol=1e-12)
    else:
        np.testing.assert_array_equal(nodes, order)


@METRIC
def test_equal_vectors_come_in_the_order_of_their_ids_wherever_they_lie(
    tmp_path: Path, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "_BLOCK_BYTES", 96)
    row = np.array([0.1, 0.7, -0.3, 1 / 3], np.float32)
    vectors = np.tile(row, (50, 1))
    vectors[13] = -row
    _, nodes = search(make_table(tmp_path, vectors), row[None], 5, metric=metric)
    assert nodes.tolist() == [[0, 1, 2, 3, 4]]
    _, nodes = search(make_table(tmp_path, vectors, overwrite=True), row[None], 50, metric=metric)
    assert nodes[0].tolist() == [*range(13), *range(14, 50), 13]


def test_distances_come_smallest_first(tmp_path: Path) -> None:
    scores, nodes = search(make_table(tmp_path, line()), [[7.0, 1.0]], 3, metric="l2")
    assert nodes.tolist() == [[7, 6, 8]]
    assert scores.tolist() == [[0.0, 1.0, 1.0]]


def test_more_neighbours_than_rows_gives_all_rows(tmp_path: Path) -> None:
    scores, nodes = search(make_table(tmp_path, line(4)), [[0.0, 1.0]], 10, metric="l2")
    assert nodes.tolist() == [[0, 1, 2, 3]]
    assert scores.shape == (1, 4)


def test_an_excluded_node_leaves_an_empty_place_when_no_other_is_left(tmp_path: Path) -> None:
    scores, nodes = search(make_table(tmp_path, line(3)), line(3)[:2], 3, metric="l2", exclude=np.array([0, -1]))
    assert nodes.tolist() == [[1, 2, -1], [1, 0, 2]]
    assert np.isnan(scores[0, 2])


def test_rows_that_are_not_finite_are_never_found(tmp_path: Path) -> None:
    vectors = line(5)
    vectors[1, 0], vectors[3, 1] = np.nan, np.inf
    for metric in METRICS:
        _, nodes = search(make_table(tmp_path, vectors, overwrite=True), [[1.0, 1.0]], 5, metric=metric)
        assert sorted(nodes[0].tolist()) == [-1, -1, 0, 2, 4]


def test_a_zero_vector_has_cosine_zero(tmp_path: Path) -> None:
    vectors = np.array([[0, 0], [1, 0], [-1, 0]], np.float32)
    scores, nodes = search(make_table(tmp_path, vectors), [[1.0, 0.0]], 3)
    assert nodes.tolist() == [[1, 0, 2]]
    assert scores.tolist() == [[1.0, 0.0, -1.0]]


@pytest.mark.parametrize(
    ("queries", "k", "metric", "message"),
    [
        ([[1.0]], 1, "dot", r"the queries have shape \(1, 1\); .* needs \[number of queries, 2\]"),
        ([1.0, 2.0], 1, "dot", r"the queries have shape \(2,\)"),
        ([[1.0, np.nan]], 1, "dot", "query 0 holds nan at place 1; give finite numbers"),
        ([[1.0, 2.0]], 0, "dot", "k is 0; ask for at least 1 neighbour"),
        ([[1.0, 2.0]], 1, "manhattan", "metric 'manhattan' is unknown; choose cosine, dot or l2"),
    ],
)
def test_a_wrong_question_is_refused(
    tmp_path: Path, queries: list[list[float]], k: int, metric: Metric, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        search(make_table(tmp_path, line()), queries, k, metric=metric)


def test_neighbours_speak_external_ids_and_leave_the_asked_one_out(tmp_path: Path) -> None:
    table = make_table(tmp_path, line(6), ids=[f"p{row}" for row in range(6)])
    first, second, third = neighbours(table, ["p2", "nobody", "p5"], 2, metric="l2")
    assert (first.id, first.found, first.ids, first.scores) == ("p2", True, ["p1", "p3"], [1.0, 1.0])
    assert (second.id, second.found, second.ids, second.scores) == ("nobody", False, [], [])
    assert third.ids == ["p4", "p3"]


def test_no_known_id_gives_no_answer_but_no_error(tmp_path: Path) -> None:
    (answer,) = neighbours(make_table(tmp_path, line(6)), [77], 2)
    assert answer.as_dict() == {"id": 77, "found": False, "ids": [], "scores": []}


def test_float16_tables_are_searched_too(tmp_path: Path) -> None:
    _, nodes = search(make_table(tmp_path, line(), dtype="float16"), [[7.0, 1.0]], 3, metric="l2")
    assert nodes.tolist() == [[7, 6, 8]]
