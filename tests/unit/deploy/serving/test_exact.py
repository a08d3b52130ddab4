"""The fast exact search answers what the slow one does, to the bit."""

import numpy as np
import numpy.typing as npt
import pytest
from helpers.tables import make_table
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.deploy import lookup
from graphsys.deploy.lookup import Metric
from graphsys.deploy.serving.exact import ExactSearch
from graphsys.deploy.serving.index import SearchIndex
from graphsys.storage.embeddings import EmbeddingTable

KINDS, DIMS = ("ties", "random", "near", "sizes", "odd"), (3, 17, 17, 4, 3)
METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")


def vectors_of(kind: str, rows: int, dim: int, seed: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    if kind == "ties":
        return rng.integers(-2, 3, (rows, dim)).astype(np.float32)
    made = rng.standard_normal((rows, dim)).astype(np.float32)
    if kind == "near":  # closer than float32 sums can tell apart
        made = (made[:1] + 1e-6 * made).astype(np.float32)
    if kind == "sizes":
        made *= (10.0 ** rng.integers(-30, 18, (rows, 1))).astype(np.float32)
    if kind == "odd":
        made[rng.random(rows) < 0.3] = 0
        made[rng.random(rows) < 0.2, 0] = np.nan
        made[rng.random(rows) < 0.1, 0] = np.inf
    return made


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], EmbeddingTable]:
    made = {}
    for place, kind in enumerate(KINDS):
        vectors = vectors_of(kind, 120, DIMS[place], seed=place)
        folder = tmp_path_factory.mktemp(kind)
        made[kind, "float32"] = make_table(folder, vectors, block=120)
        (folder / "narrow").mkdir()
        made[kind, "float16"] = make_table(folder / "narrow", np.clip(vectors, -6e4, 6e4), dtype="float16", block=120)
    return made


@pytest.mark.parametrize("metric", METRICS)
@given(
    kind=st.sampled_from(KINDS),
    dtype=st.sampled_from(["float32", "float16"]),
    k=st.integers(1, 130),
    num_queries=st.integers(1, 6),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=60)
def test_it_agrees_with_the_slow_search(
    tables: dict[tuple[str, str], EmbeddingTable],
    metric: Metric,
    kind: str,
    dtype: str,
    k: int,
    num_queries: int,
    threads: int,
    seed: int,
) -> None:
    table, rng = tables[kind, dtype], np.random.default_rng(seed)
    queries = np.where(rng.random((num_queries, 1)) < 0.2, 0.0, rng.standard_normal((num_queries, table.dim)))
    own = table.take(rng.integers(0, table.num_rows, 1)).astype(np.float64)
    queries[0] = own if np.isfinite(own).all() else 1.0
    exclude = rng.integers(-1, table.num_rows, num_queries)
    with np.errstate(invalid="ignore"):  # the slow one multiplies lengths of rows that are not finite
        expected = lookup.search(table, queries, k, metric=metric, exclude=exclude)
    index = SearchIndex(ExactSearch(table.vectors.memmap(), threads=threads), None, metric="cosine", content={})
    found = index.search(queries, k, metric, exclude)
    index.close()
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


def test_more_queries_than_pass_together_are_answered_in_their_order() -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
    exact = ExactSearch(vectors, threads=2)
    _, node = exact.search(vectors[:100].astype(np.float64), 1, "l2")
    exact.close()
    assert node[:, 0].tolist() == list(range(100))
