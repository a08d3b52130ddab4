"""An index of neighbours: what it finds, where it lies, and when it is built."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers.tables import make_table

from graphsys.core.errors import ArtefactError, DiskError, InputError
from graphsys.core.progress import SilentProgress, Task
from graphsys.deploy import lookup
from graphsys.deploy.lookup import Metric
from graphsys.deploy.serving import best_graph, calibrate, index_folder
from graphsys.deploy.serving.index import IndexSettings, SearchIndex, open_index
from graphsys.deploy.serving.index import index_folder as folder_of
from graphsys.storage.embeddings import EmbeddingTable

ROWS, DIM = 4000, 16
METRICS: tuple[Metric, ...] = ("cosine", "dot", "l2")


@pytest.fixture(autouse=True)
def _graphs_of_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a table of a few thousand rows have a graph, as one of a million has."""
    monkeypatch.setattr(best_graph, "SCANNED_NUMBERS", 500 * 32)
    monkeypatch.setattr(best_graph, "_ROWS_PER_CANDIDATE", 10)


def clustered(rows: int = ROWS, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return rows about forty centres, of unlike lengths, some of them the same, some zero and some not finite."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((40, DIM)) * rng.uniform(0.5, 2, (40, 1))
    made = (centre[rng.integers(0, 40, rows)] + 0.3 * rng.standard_normal((rows, DIM))).astype(np.float32)
    made[100:400] = made[7]
    made[500:900] = 0
    made[1000:1003, 2] = np.nan
    return made


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTable:
    return make_table(tmp_path_factory.mktemp("table"), clustered(), block=1000)


@pytest.fixture(params=METRICS)
def index(request: pytest.FixtureRequest, table: EmbeddingTable) -> Iterator[SearchIndex]:
    opened = open_index(table, IndexSettings(metric=request.param, threads=2))
    yield opened
    opened.close()


class Watching(SilentProgress):
    """Remembers what was worked on and said."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.messages: list[str] = []

    def start(self, title: str, total: float | None, unit: str) -> Task:
        self.titles.append(title)
        return super().start(title, total, unit)

    def message(self, text: str) -> None:
        self.messages.append(text)


def queries(seed: int = 1) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    own = clustered()[rng.permutation(np.arange(1100, ROWS))[:60]].astype(np.float64)
    return np.concatenate([own, own + 0.1 * rng.standard_normal(own.shape)])


def test_a_graph_finds_what_an_exact_search_finds(index: SearchIndex, table: EmbeddingTable) -> None:
    if index.metric != "dot":  # products of vectors of unlike lengths are hard for a graph, so those are scanned
        assert index.content["kind"] == "graph", index.content
        assert min(index.content["recall"].values()) >= calibrate.TARGET
    expected = lookup.search(table, queries(), 10, metric=index.metric)
    scores, nodes = index.search(queries(), 10)
    hits = [len({*found} & {*true}) for found, true in zip(nodes.tolist(), expected[1].tolist(), strict=True)]
    assert sum(hits) / (10 * len(hits)) >= 0.99
    same = nodes == expected[1]
    np.testing.assert_array_equal(scores[same], expected[0][same])


def test_equal_vectors_come_in_the_order_of_their_ids(index: SearchIndex, table: EmbeddingTable) -> None:
    asked = clustered()[[7]].astype(np.float64)
    if index.metric == "dot":
        pytest.skip("longer vectors are nearer than equal ones")
    _, nodes = index.search(asked, 20, exclude=np.array([7]))
    assert nodes[0].tolist() == list(range(100, 120))
    assert lookup.search(table, asked, 20, metric=index.metric, exclude=np.array([7]))[1].tolist() == nodes.tolist()


def test_rows_of_zeros_and_rows_that_are_not_finite_are_found_as_an_exact_search_finds_them(
    index: SearchIndex, table: EmbeddingTable
) -> None:
    zero = np.zeros((1, DIM))
    expected = lookup.search(table, zero, 3, metric=index.metric)
    scores, nodes = index.search(zero, 3)
    if index.metric != "dot":  # by which every row is as near as another
        assert nodes.tolist() == expected[1].tolist()
    assert scores.tolist() == expected[0].tolist()
    _, nodes = index.search(queries(), 50)
    assert not set(nodes.ravel().tolist()) & {1000, 1001, 1002}


def test_other_metrics_and_many_neighbours_are_answered_exactly(table: EmbeddingTable) -> None:
    index = open_index(table, IndexSettings(metric="l2"))
    for metric in METRICS:
        expected = lookup.search(table, queries()[:3], 600, metric=metric)
        for found, true in zip(index.search(queries()[:3], 600, metric), expected, strict=True):
            np.testing.assert_array_equal(found, true)
    _, nodes = index.search(queries()[:3], 10, exact=True)
    assert nodes.tolist() == lookup.search(table, queries()[:3], 10, metric="l2")[1].tolist()
    index.close()


def test_what_is_built_once_is_opened_from_then_on(tmp_path: Path) -> None:
    table = make_table(tmp_path, clustered(1500), block=500)
    first, again = Watching(), Watching()
    open_index(table, IndexSettings(), first).close()
    files = {path: path.stat().st_mtime_ns for path in folder_of(table, IndexSettings()).rglob("*")}
    open_index(table, IndexSettings(), again).close()
    assert any("link" in title for title in first.titles)
    assert not any("link" in title for title in again.titles)
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_an_index_of_another_table_is_built_again(tmp_path: Path) -> None:
    settings = IndexSettings(metric="l2")
    open_index(make_table(tmp_path, clustered(1500), block=500), settings).close()
    other = make_table(tmp_path, clustered(1500, seed=5), block=500, overwrite=True)
    index = open_index(other, settings)
    assert index.search(other.take(np.array([1200])), 1)[1].tolist() == [[1200]]
    index.close()


def test_a_flipped_byte_is_noticed_and_the_index_built_again(tmp_path: Path) -> None:
    table = make_table(tmp_path, clustered(1500), block=500)
    open_index(table, IndexSettings()).close()
    file = folder_of(table, IndexSettings()) / index_folder.GRAPH_NAME
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    watching = Watching()
    open_index(table, IndexSettings(), watching).close()
    assert any("graph.usearch is corrupt" in line and "built again" in line for line in watching.messages)
    open_index(table, IndexSettings(), again := Watching()).close()
    assert again.messages == []


def test_a_build_that_is_cut_short_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = make_table(tmp_path, clustered(1500), block=500)

    def cut(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(index_folder, "write_manifest", cut)
        with pytest.raises(KeyboardInterrupt):
            open_index(table, IndexSettings())
    assert [path for path in tmp_path.rglob("*") if "index" in path.name or path.suffix == ".usearch"] == []


def test_vectors_that_no_graph_can_order_are_scanned_and_the_listing_says_why(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((1500, 64)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_graph, "_ROWS_PER_CANDIDATE", 46)  # at most 32 candidates
        index = open_index(make_table(tmp_path, noise, block=500), IndexSettings())
    assert index.content["kind"] == "exact"
    assert "up to 32 candidates found too little" in index.content["reason"]
    assert index.search(noise[:5], 1)[1].ravel().tolist() == [0, 1, 2, 3, 4]
    index.close()


@pytest.mark.parametrize("storage", ["f32", "f16", "i8"])
def test_a_graph_may_keep_vectors_in_fewer_bits(tmp_path: Path, storage: Any) -> None:
    table = make_table(tmp_path, clustered(1500), block=500, dtype="float16")
    index = open_index(table, IndexSettings(storage=storage))
    assert index.content["stored_as"] == storage
    assert index.search(table.take(np.array([1200])), 1)[1].tolist() == [[1200]]
    index.close()


def test_small_tables_have_no_index(tmp_path: Path) -> None:
    table = make_table(tmp_path, clustered(480), block=500)
    index = open_index(table, IndexSettings())
    assert index.content["kind"] == "exact"
    assert not folder_of(table, IndexSettings()).exists()
    index.close()


def test_indices_may_lie_in_another_folder_than_their_tables(tmp_path: Path) -> None:
    table = make_table(tmp_path, clustered(1500), block=500)
    beside = tmp_path / "emb.gs.index"
    beside.write_text("no folder can be made here")
    with pytest.raises(DiskError, match=r"emb\.gs\.index.*--set index_folder=FOLDER"):
        open_index(table, IndexSettings())
    open_index(table, IndexSettings(folder=tmp_path / "kept")).close()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [f"{table.version}.index"]
    open_index(table, IndexSettings(folder=tmp_path / "kept"), again := Watching()).close()
    assert again.messages == []
    assert beside.read_text() == "no folder can be made here"


def test_something_else_at_the_place_of_the_index_is_left_alone(tmp_path: Path) -> None:
    table = make_table(tmp_path, clustered(1500), block=500)
    other = folder_of(table, IndexSettings()) / "mine.txt"
    other.parent.mkdir(parents=True)
    other.write_text("keep me")
    with pytest.raises(ArtefactError, match="is no index of neighbours; move it away"):
        open_index(table, IndexSettings())
    assert other.read_text() == "keep me"


@pytest.mark.parametrize(
    ("asked", "k", "says"),
    [
        (np.ones((1, 3)), 1, r"shape \(1, 3\); the table needs \[number of queries, 16\]"),
        (np.full((1, DIM), np.nan), 1, "query 0 holds nan at place 0"),
        (np.full((1, DIM), 1e39), 1, r"query 0 holds 1e\+39 at place 0; give finite float32"),
        (np.ones((1, DIM)), 0, "k is 0"),
    ],
)
def test_a_wrong_question_is_refused(table: EmbeddingTable, asked: Any, k: int, says: str) -> None:
    index = open_index(table, IndexSettings(metric="l2"))
    with pytest.raises(InputError, match=says):
        index.search(asked, k)
    index.close()


def test_an_index_that_another_process_begins_meanwhile_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_table(tmp_path, clustered(1500), block=500)
    folder = folder_of(table, IndexSettings())
    may_replace = index_folder._may_replace
    other: list[threading.Thread] = []

    def late(path: Path) -> bool:
        found = may_replace(path)
        if not other:  # between this process's look and its claim
            other.append(threading.Thread(target=build))
            monkeypatch.setattr(index_folder, "_may_replace", may_replace)
            other[0].start()
            while not path.exists():
                assert other[0].is_alive()  # or nobody would end this loop
                time.sleep(0.01)
        return found

    def build() -> None:
        open_index(table, IndexSettings()).close()

    monkeypatch.setattr(index_folder, "_may_replace", late)
    index = open_index(table, IndexSettings(), watching := Watching())
    other[0].join()
    assert folder.is_dir()
    assert not any("link" in title for title in watching.titles)
    index.close()
