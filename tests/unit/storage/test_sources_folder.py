import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from helpers.generated import generated_arrays
from helpers.raw_graphs import whole_edges, whole_nodes

from graphsys.core.errors import FormatVersionError, InputError
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.generate import generate
from graphsys.storage.sources import GraphSource, SourceSpec
from graphsys.storage.sources_folder import open_folder

SPEC = SourceSpec()
GENERATED = GenerateSpec(nodes=300, edges=2000, features=3, classes=4, seed=5)
EDGES = np.array([[0, 1, 2, 4], [1, 2, 3, 0]])
X = np.arange(10, dtype=np.float32).reshape(5, 2)
Y = np.array([0, 1, 2, 1, 0])
CODES = np.array([1, 2, 0, 1, 3], np.uint8)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    generate(tmp_path / "raw", GENERATED)
    return tmp_path / "raw"


def write_arrays(folder: Path, **arrays: Any) -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def edge_columns() -> pa.Table:
    return pa.table({"src": EDGES[0], "dst": EDGES[1]})


def assert_is_the_graph(source: GraphSource) -> None:
    nodes, edges = whole_nodes(source.nodes[0]), whole_edges(source.edges[0])
    assert source.nodes[0].num_nodes == 5
    np.testing.assert_array_equal(nodes.x, X)
    np.testing.assert_array_equal(nodes.y, Y)
    np.testing.assert_array_equal(nodes.split, CODES)
    np.testing.assert_array_equal(edges.src, EDGES[0])
    np.testing.assert_array_equal(edges.dst, EDGES[1])


def test_a_generated_folder_gives_the_graph_that_was_generated(raw: Path) -> None:
    source, expected = open_folder(raw, SPEC), generated_arrays(GENERATED)
    nodes, edges = whole_nodes(source.nodes[0]), whole_edges(source.edges[0])
    assert nodes.ids is None
    np.testing.assert_array_equal(nodes.x, expected.x)
    np.testing.assert_array_equal(nodes.y, expected.y)
    np.testing.assert_array_equal(nodes.split, expected.split)
    np.testing.assert_array_equal(edges.src, expected.src)
    np.testing.assert_array_equal(edges.dst, expected.dst)
    assert {file.name for file in source.files} == {"graph.json", "part-00000.parquet", "x.npy", "y.npy", "split.npy"}
    assert source.ignored == ()


def test_types_of_a_generated_folder_are_named_by_the_spec(raw: Path) -> None:
    source = open_folder(raw, replace(SPEC, node_type="paper", relation="cites"))
    assert source.nodes[0].node_type == "paper"
    assert source.edges[0].edge_type == ("paper", "cites", "paper")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"edges": 2001}, InputError, "holds 2000 edges, but its graph.json says 2001"),
        ({"nodes": 299}, InputError, "holds 300 nodes, but its graph.json says 299"),
        ({"version": 2}, FormatVersionError, "version 2, this program reads up to 1"),
        ({"format": "other"}, InputError, "describes 'other'"),
        ({"nodes": "many"}, InputError, "describes 'graphsys.raw'|damaged"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    raw: Path, change: dict[str, Any], error: type[Exception], words: str
) -> None:
    values = json.loads((raw / "graph.json").read_text())
    (raw / "graph.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(error, match=words):
        open_folder(raw, SPEC)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_description_is_refused(raw: Path, content: bytes) -> None:
    (raw / "graph.json").write_bytes(content)
    with pytest.raises(InputError, match=r"graph\.json is damaged or of another program"):
        open_folder(raw, SPEC)


def test_a_generated_folder_without_an_edge_part_is_refused(raw: Path) -> None:
    (raw / "edges" / "part-00000.parquet").unlink()
    with pytest.raises(InputError, match="edges holds no table"):
        open_folder(raw, SPEC)


def test_a_truncated_array_is_refused(raw: Path) -> None:
    (raw / "x.npy").write_bytes((raw / "x.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"x\.npy is truncated"):
        open_folder(raw, SPEC)


@pytest.mark.parametrize(
    "splits",
    [
        {"split": CODES},
        {"split": CODES.astype(np.int64)},
        {"train": np.array([0, 3]), "val": np.array([1]), "test": np.array([4])},
        {"train": CODES == 1, "valid": CODES == 2, "test_mask": CODES == 3},
    ],
)
@pytest.mark.parametrize("edges", ["arrays", "parquet", "csv", "folder"])
def test_arrays_and_edge_tables_of_any_form_are_one_graph(tmp_path: Path, splits: dict[str, Any], edges: str) -> None:
    folder = write_arrays(tmp_path / "data", x=X, y=Y, **splits)
    if edges == "arrays":
        write_arrays(folder, edge_index=EDGES)
    elif edges == "parquet":
        pq.write_table(edge_columns(), folder / "edges.parquet")
    elif edges == "csv":
        pa_csv.write_csv(edge_columns(), folder / "edges.csv")
    else:
        (folder / "edges").mkdir()
        pq.write_table(edge_columns().slice(0, 3), folder / "edges" / "part-0.parquet")
        pq.write_table(edge_columns().slice(3), folder / "edges" / "part-1.parquet")
    assert_is_the_graph(open_folder(folder, SPEC))


def test_node_and_edge_tables_are_read_by_the_columns_of_the_spec(tmp_path: Path) -> None:
    pq.write_table(pa.table({"from": ["a", "b"], "to": ["b", "c"]}), tmp_path / "edges.parquet")
    nodes = pa.table({"id": ["a", "b", "c"], "f": [0.0, 1.0, 2.0], "kind": [1, 0, 1]})
    pa_csv.write_csv(nodes, tmp_path / "nodes.csv")
    spec = replace(SPEC, src="from", dst="to", features=("f",), label="kind")
    source = open_folder(tmp_path, spec)
    found = whole_nodes(source.nodes[0])
    assert found.ids is not None
    assert list(found.ids) == ["a", "b", "c"]
    np.testing.assert_array_equal(found.x, [[0.0], [1.0], [2.0]])
    np.testing.assert_array_equal(found.y, [1, 0, 1])


def test_a_folder_of_tables_alone_holds_edges(tmp_path: Path) -> None:
    pq.write_table(edge_columns().slice(0, 2), tmp_path / "a.parquet")
    pq.write_table(edge_columns().slice(2), tmp_path / "b.parquet")
    source = open_folder(tmp_path, SPEC)
    assert source.nodes == ()
    np.testing.assert_array_equal(whole_edges(source.edges[0]).src, EDGES[0])


def test_edges_alone_need_no_nodes(tmp_path: Path) -> None:
    source = open_folder(write_arrays(tmp_path, edge_index=EDGES), SPEC)
    assert source.nodes == ()
    pq.write_table(edge_columns(), tmp_path / "edges.parquet")
    (tmp_path / "edge_index.npy").unlink()
    assert open_folder(tmp_path, SPEC).nodes == ()


def test_a_split_alone_says_how_many_nodes_there_are(tmp_path: Path) -> None:
    source = open_folder(write_arrays(tmp_path, edge_index=EDGES, split=CODES), SPEC)
    assert source.nodes[0].num_nodes == 5
    np.testing.assert_array_equal(whole_nodes(source.nodes[0]).split, CODES)


def test_arrays_that_no_table_takes_are_reported(tmp_path: Path) -> None:
    folder = write_arrays(tmp_path / "data", x=X, y=Y, year=np.arange(5))
    pq.write_table(edge_columns(), folder / "edges.parquet")
    assert open_folder(folder, SPEC).ignored == ("year (not used)",)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({}, "holds no graph"),
        ({"x": X, "y": Y[:4], "edge_index": EDGES}, "x.npy says 5 .*y.npy says 4"),
        ({"x": X, "edge_index": EDGES, "split": CODES[:4]}, "split.npy has 4 rows for 5 nodes"),
        ({"x": X, "edge_index": EDGES, "split": CODES + 1}, "split.npy: node 4 has the code 4"),
        ({"x": X, "edge_index": EDGES, "split": CODES / 1}, "split.npy is of type float64"),
        ({"x": X, "edge_index": EDGES, "split": X}, r"split.npy has shape \[5, 2\]"),
        ({"x": X, "edge_index": EDGES, "split": CODES, "train": np.array([0])}, "keep one kind of split"),
        ({"x": X, "edge_index": EDGES[0]}, r"edge_index.npy has shape \[4\]"),
    ],
)
def test_arrays_that_disagree_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    folder = write_arrays(tmp_path / "data", **arrays)
    with pytest.raises(InputError, match=words):
        open_folder(folder, SPEC)


@pytest.mark.parametrize(
    ("arrays", "spec", "words"),
    [
        ({"x": X, "y": Y[:4]}, SPEC, "x.npy says 5 nodes and y.npy says 4"),
        ({"x": X, "train": CODES[:3] == 1}, SPEC, "says 5 nodes and train.npy says 3"),
        ({"x": X}, replace(SPEC, label="kind"), "no array 'kind' for labels"),
        ({"x": X}, replace(SPEC, features=("a", "b")), "name one array, not a, b"),
    ],
)
def test_arrays_beside_an_edge_table_that_disagree_are_refused(
    tmp_path: Path, arrays: dict[str, Any], spec: SourceSpec, words: str
) -> None:
    folder = write_arrays(tmp_path / "data", **arrays)
    pq.write_table(edge_columns(), folder / "edges.parquet")
    with pytest.raises(InputError, match=words):
        open_folder(folder, spec)
