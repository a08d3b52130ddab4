from pathlib import Path

import numpy as np
import pytest
from helpers.artefacts import flip, made_run
from helpers.graphs import tiny_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.errors import ArtefactError, CorruptError
from graphsys.storage import inspect as module
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.inspect import degree_statistics, inspect


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_run(tmp_path_factory.mktemp("inspect") / "run")


def test_a_store_tells_its_schema_arrays_parents_and_degrees(run: Path) -> None:
    found = inspect(run / "graph.gs")
    degree = np.bincount(tiny_graph(num_nodes=50, num_edges=300).edge_index[1], minlength=50)
    assert (found["kind"], found["path"]) == ("store", str(run / "graph.gs"))
    assert len(found["fingerprint"]) == 32
    assert found["parents"].keys() == {"memory"}
    info = found["content"]["node_types"]["node"]
    assert (info["num_nodes"], info["num_features"], info["label_kind"]) == (50, 8, "class")
    assert found["content"]["edge_types"]["node__to__node"]["num_edges"] == 300
    assert found["content"]["in_degrees"]["node__to__node"] == {
        "mean": 6.0,
        "median": int(np.sort(degree)[24]),
        "p99": int(np.sort(degree)[49]),
        "max": int(degree.max()),
        "isolated_share": float(np.mean(degree == 0)),
    }
    assert found["arrays"]["nodes/node/x"] == {"dtype": "float32", "shape": [50, 8], "nbytes": 1600}


def test_a_window_tells_its_header_and_totals(run: Path) -> None:
    found = inspect(run / "windows" / "train" / "window-0000.pack")
    assert found["kind"] == "window"
    assert found["content"]["num_batches"] == 3
    assert found["content"]["num_nodes"] > 0
    assert found["content"]["largest_batch_bytes"] % 4096 == 0


def test_a_checkpoint_a_table_and_sealed_files_tell_their_content(run: Path) -> None:
    checkpoint = inspect(run / "checkpoints" / "step-00000004")
    assert (checkpoint["kind"], checkpoint["content"]) == ("checkpoint", {"step": 4, "epoch": 1})
    assert inspect(run / "embeddings.gs")["content"]["dim"] == 4
    result = inspect(run / "result.json")
    assert (result["kind"], result["content"]["test"]) == ("result", {"accuracy": 0.5})
    config = inspect(run / "config.yaml")
    assert (config["kind"], config["content"]["memory"]) == ("run_file", 64 << 20)


def test_a_run_folder_tells_of_every_artefact_below_it(run: Path) -> None:
    found = inspect(run)
    assert (found["kind"], found["path"]) == ("folder", str(run))
    kinds = [artefact["kind"] for artefact in found["artefacts"]]
    assert kinds == ["checkpoint", "run_file", "embedding_table", "store", "result", "window"]
    assert found["nbytes"] == sum(artefact["nbytes"] for artefact in found["artefacts"])


def test_damaged_metadata_is_refused_and_damaged_data_is_not_read(run: Path) -> None:
    data = run / "graph.gs" / "nodes" / "node" / "x" / "c" / "0" / "0"
    flip(data, 0)
    inspect(run / "graph.gs")
    flip(data, 0)
    flip(run / "graph.gs" / "manifest.json", 20)
    with pytest.raises(CorruptError, match=r"manifest\.json"):
        inspect(run / "graph.gs")
    flip(run / "graph.gs" / "manifest.json", 20)
    with pytest.raises(ArtefactError, match="does not exist"):
        inspect(run / "nothing")


@settings(deadline=None, max_examples=40)
@given(degree=st.lists(st.integers(0, 70_000), min_size=1, max_size=60), rows=st.integers(1, 70))
def test_degree_statistics_equal_those_of_the_sorted_degrees(
    tmp_path_factory: pytest.TempPathFactory, degree: list[int], rows: int
) -> None:
    indptr = np.concatenate([[0], np.cumsum(degree)])
    folder = tmp_path_factory.mktemp("indptr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", rows)
        found = degree_statistics(FlatArray(folder, write_array(folder, indptr)))
    ordered = sorted(degree)
    assert found == {
        "mean": sum(degree) / len(degree),
        "median": min(ordered[-(-len(degree) // 2) - 1], 1 << 16),
        "p99": min(ordered[-(-99 * len(degree) // 100) - 1], 1 << 16),
        "max": max(degree),
        "isolated_share": degree.count(0) / len(degree),
    }
