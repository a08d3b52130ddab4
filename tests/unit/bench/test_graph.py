from pathlib import Path

import pytest
from helpers.graphs import tiny_store

from graphsys.bench.graph import find_graph
from graphsys.core.errors import ArtefactError, InputError
from graphsys.core.progress import SILENT
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.generate import generate


def test_a_store_is_taken_as_it_is(tmp_path: Path) -> None:
    store = tiny_store(tmp_path)
    assert find_graph(store, "small", tmp_path / "work", SILENT) == (store, None)
    assert not (tmp_path / "work").exists()


def test_a_raw_graph_is_imported_once_into_the_work_folder(tmp_path: Path) -> None:
    raw, work = tmp_path / "raw", tmp_path / "work"
    generate(raw, GenerateSpec(nodes=300, edges=1000, features=8, classes=3))
    store, found = find_graph(raw, "small", work, SILENT)
    before = (store / "manifest.json").stat().st_mtime_ns
    assert found == raw
    assert store.parent == work
    assert find_graph(raw, "small", work, SILENT) == (store, raw)
    assert (store / "manifest.json").stat().st_mtime_ns == before


def test_a_graph_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="does not exist"):
        find_graph(tmp_path / "no", "small", tmp_path / "work", SILENT)


def test_a_store_without_training_nodes_cannot_be_measured_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training nodes"):
        find_graph(tiny_store(tmp_path, splits=False), "small", tmp_path / "work", SILENT)
