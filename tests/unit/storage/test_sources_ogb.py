import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.raw_graphs import whole_edges, whole_nodes, write_csv

from graphsys.core.errors import InputError
from graphsys.core.types import Array
from graphsys.storage import columns
from graphsys.storage.sources import SourceSpec
from graphsys.storage.sources_ogb import is_ogb, open_ogb

SPEC = SourceSpec()
X = np.arange(15, dtype=np.float64).reshape(5, 3) / 4
Y = np.array([0, 1, 2, 1, 0])
EDGES = np.array([[0, 1], [1, 2], [2, 3], [4, 0]])
ATTR = EDGES / 8


def write_homogeneous(root: Path) -> Path:
    write_csv(root / "raw" / "edge.csv.gz", EDGES)
    write_csv(root / "raw" / "edge-feat.csv.gz", ATTR)
    write_csv(root / "raw" / "node-feat.csv.gz", X)
    write_csv(root / "raw" / "node-label.csv.gz", Y)
    write_csv(root / "raw" / "node_year.csv.gz", 2000 + np.arange(5))
    write_csv(root / "raw" / "num-node-list.csv.gz", np.array([5]))
    write_csv(root / "raw" / "num-edge-list.csv.gz", np.array([4]))
    write_split(root / "split" / "time")
    return root


def write_split(folder: Path) -> None:
    for name, nodes in (("train", [0, 3]), ("valid", [1]), ("test", [4])):
        write_csv(folder / f"{name}.csv.gz", np.array(nodes))


def write_binary(root: Path, y: Array) -> Path:
    (root / "raw").mkdir(parents=True)
    np.savez_compressed(
        root / "raw" / "data.npz",
        edge_index=EDGES.T,
        node_feat=X.astype(np.float32),
        edge_feat=ATTR,
        node_year=np.arange(5),
        num_nodes_list=np.array([5]),
        num_edges_list=np.array([4]),
    )
    np.savez_compressed(root / "raw" / "node-label.npz", node_label=y)
    write_split(root / "split" / "time")
    return root


def write_heterogeneous(root: Path) -> Path:
    raw = root / "raw"
    write_csv(raw / "triplet-type-list.csv.gz", [["author", "writes", "paper"], ["paper", "cites", "paper"]])
    write_csv(raw / "num-node-dict.csv.gz", [["author", "paper"], [3, 5]])
    write_csv(raw / "nodetype-has-feat.csv.gz", [["author", "paper"], [False, True]])
    write_csv(raw / "relations" / "author___writes___paper" / "edge.csv.gz", np.array([[0, 4], [2, 1]]))
    write_csv(raw / "relations" / "author___writes___paper" / "num-edge-list.csv.gz", np.array([2]))
    write_csv(raw / "relations" / "paper___cites___paper" / "edge.csv.gz", EDGES)
    write_csv(raw / "relations" / "paper___cites___paper" / "num-edge-list.csv.gz", np.array([4]))
    write_csv(raw / "relations" / "paper___cites___paper" / "edge_reltype.csv.gz", np.zeros(4, np.int64))
    write_csv(raw / "node-feat" / "paper" / "node-feat.csv.gz", X)
    write_csv(raw / "node-label" / "paper" / "node-label.csv.gz", Y)
    write_split(root / "split" / "time" / "paper")
    return root


def test_a_folder_with_raw_files_is_recognised(tmp_path: Path) -> None:
    assert is_ogb(write_homogeneous(tmp_path / "csv"))
    assert is_ogb(write_binary(tmp_path / "npz", Y[:, None]))
    assert is_ogb(write_heterogeneous(tmp_path / "mag"))
    assert not is_ogb(tmp_path)


def test_csv_files_become_one_node_table_and_one_edge_table(tmp_path: Path) -> None:
    source = open_ogb(write_homogeneous(tmp_path / "arxiv"), SPEC)
    nodes, edges = whole_nodes(source.nodes[0]), whole_edges(source.edges[0])
    assert (source.nodes[0].node_type, source.nodes[0].num_nodes) == ("node", 5)
    assert nodes.ids is None
    np.testing.assert_array_equal(nodes.x, X.astype(np.float32))
    np.testing.assert_array_equal(nodes.y, Y)
    assert nodes.y is not None
    assert nodes.y.dtype == np.int64
    np.testing.assert_array_equal(nodes.split, [1, 2, 0, 1, 3])
    np.testing.assert_array_equal(edges.src, EDGES[:, 0])
    np.testing.assert_array_equal(edges.dst, EDGES[:, 1])
    np.testing.assert_array_equal(edges.edge_attr, ATTR.astype(np.float32))
    assert source.edges[0].num_edges == 4
    assert source.description == "OGB folder arxiv"


def test_every_file_used_is_named_and_every_other_reported(tmp_path: Path) -> None:
    source = open_ogb(write_homogeneous(tmp_path / "arxiv"), SPEC)
    assert {file.name for file in source.files} == {
        "edge.csv.gz", "edge-feat.csv.gz", "node-feat.csv.gz", "node-label.csv.gz", "num-node-list.csv.gz",
        "num-edge-list.csv.gz", "train.csv.gz", "valid.csv.gz", "test.csv.gz",
    }  # fmt: skip
    assert source.ignored == ("raw/node_year.csv.gz (the store has no place for it)",)


def test_tables_can_be_read_again(tmp_path: Path) -> None:
    source = open_ogb(write_homogeneous(tmp_path / "arxiv"), SPEC)
    first, second = whole_nodes(source.nodes[0]), whole_nodes(source.nodes[0])
    np.testing.assert_array_equal(first.x, second.x)


def test_chunks_of_all_columns_have_equal_length_whatever_the_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "rows_per_chunk", lambda _: 700)
    monkeypatch.setattr(columns, "_CSV_BLOCK", 4096)
    root, count = tmp_path / "many", 5000
    write_csv(root / "raw" / "edge.csv.gz", np.column_stack([np.arange(count), np.arange(count)[::-1]]))
    write_csv(root / "raw" / "node-feat.csv.gz", np.arange(count)[:, None] + np.arange(9) / 16)
    write_csv(root / "raw" / "node-label.csv.gz", np.arange(count) % 3)
    write_csv(root / "raw" / "num-node-list.csv.gz", np.array([count]))
    write_csv(root / "raw" / "num-edge-list.csv.gz", np.array([count]))
    source = open_ogb(root, SPEC)
    chunks = list(source.nodes[0].chunks())
    assert [chunk.num_rows for chunk in chunks] == [700] * 7 + [100]
    for chunk in chunks:
        assert chunk.x is not None
        assert chunk.y is not None
        assert chunk.x.shape == (chunk.num_rows, 9)
        assert chunk.y.shape == (chunk.num_rows,)
    nodes = whole_nodes(source.nodes[0])
    assert nodes.x is not None
    np.testing.assert_array_equal(nodes.x[:, 0], np.arange(count))
    np.testing.assert_array_equal(whole_edges(source.edges[0]).dst, np.arange(count)[::-1])


def test_a_graph_without_features_labels_or_splits_has_none(tmp_path: Path) -> None:
    root = tmp_path / "bare"
    write_csv(root / "raw" / "edge.csv.gz", EDGES)
    write_csv(root / "raw" / "num-node-list.csv.gz", np.array([5]))
    write_csv(root / "raw" / "num-edge-list.csv.gz", np.array([4]))
    nodes = whole_nodes(open_ogb(root, SPEC).nodes[0])
    assert (nodes.num_rows, nodes.x, nodes.y, nodes.split) == (5, None, None, None)


def test_unlabelled_nodes_are_nan_in_the_file_and_minus_one_in_the_table(tmp_path: Path) -> None:
    root = write_homogeneous(tmp_path / "arxiv")
    write_csv(root / "raw" / "node-label.csv.gz", np.array([0, np.nan, 2, np.nan, 1.0]))
    np.testing.assert_array_equal(whole_nodes(open_ogb(root, SPEC).nodes[0]).y, [0, -1, 2, -1, 1])


def test_several_label_columns_are_label_sets_and_fractions_are_values(tmp_path: Path) -> None:
    root = write_homogeneous(tmp_path / "proteins")
    sets = np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1]])
    write_csv(root / "raw" / "node-label.csv.gz", sets)
    labels = whole_nodes(open_ogb(root, SPEC).nodes[0]).y
    assert labels is not None
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, sets)
    write_csv(root / "raw" / "node-label.csv.gz", np.array([0.5, 1.0, 2.0, 3.0, np.nan]))
    values = whole_nodes(open_ogb(root, SPEC).nodes[0]).y
    assert values is not None
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.array([0.5, 1, 2, 3, np.nan], np.float32))


def test_the_binary_layout_gives_the_same_graph(tmp_path: Path) -> None:
    text = open_ogb(write_homogeneous(tmp_path / "csv"), SPEC)
    binary = open_ogb(write_binary(tmp_path / "npz", np.where(Y == 2, np.nan, Y)[:, None]), SPEC)
    nodes, same = whole_nodes(binary.nodes[0]), whole_nodes(text.nodes[0])
    np.testing.assert_array_equal(nodes.x, same.x)
    np.testing.assert_array_equal(nodes.y, np.where(Y == 2, -1, Y))
    np.testing.assert_array_equal(nodes.split, same.split)
    edges = whole_edges(binary.edges[0])
    np.testing.assert_array_equal(edges.src, EDGES[:, 0])
    np.testing.assert_array_equal(edges.dst, EDGES[:, 1])
    np.testing.assert_array_equal(edges.edge_attr, ATTR)
    assert binary.ignored == ("data.npz: node_year (the store has no place for it)",)


def test_the_heterogeneous_layout_has_a_table_per_node_type_and_triplet(tmp_path: Path) -> None:
    source = open_ogb(write_heterogeneous(tmp_path / "mag"), SPEC)
    author, paper = source.nodes
    assert [(table.node_type, table.num_nodes) for table in source.nodes] == [("author", 3), ("paper", 5)]
    assert whole_nodes(author).x is None
    np.testing.assert_array_equal(whole_nodes(paper).x, X.astype(np.float32))
    np.testing.assert_array_equal(whole_nodes(paper).split, [1, 2, 0, 1, 3])
    assert [table.edge_type for table in source.edges] == [("author", "writes", "paper"), ("paper", "cites", "paper")]
    np.testing.assert_array_equal(whole_edges(source.edges[0]).src, [0, 2])
    assert source.ignored == (
        "raw/relations/paper___cites___paper/edge_reltype.csv.gz (the store has no place for it)",
    )


def test_one_of_several_schemes_must_be_named(tmp_path: Path) -> None:
    root = write_homogeneous(tmp_path / "products")
    write_csv(root / "split" / "random" / "train.csv.gz", np.array([2]))
    write_csv(root / "split" / "random" / "valid.csv.gz", np.array([3]))
    write_csv(root / "split" / "random" / "test.csv.gz", np.array([4]))
    with pytest.raises(InputError, match=r"schemes random, time.*--split"):
        open_ogb(root, SPEC)
    source = open_ogb(root, replace(SPEC, split="random"))
    np.testing.assert_array_equal(whole_nodes(source.nodes[0]).split, [0, 0, 1, 2, 3])
    with pytest.raises(InputError, match="no scheme 'species'"):
        open_ogb(root, replace(SPEC, split="species"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("raw/node-feat.csv.gz", gzip.compress(b"1,2,3\n", mtime=0), "holds 1 rows, but .*num-node-list.csv.gz says 5"),
        ("raw/node-feat.csv.gz", gzip.compress(b"1,2,3\n" * 6, mtime=0), "holds more rows"),
        ("raw/node-feat.csv.gz", gzip.compress(b"1,2,x\n" * 5, mtime=0), "node-feat.csv.gz cannot be read as numbers"),
        ("raw/node-feat.csv.gz", gzip.compress(b"1,2,3\n" * 5, mtime=0)[:-9], "Truncated compressed stream"),
        ("raw/node-feat.csv.gz", b"1,2,3\n", "incorrect header check"),
        ("raw/edge.csv.gz", gzip.compress(b"", mtime=0), "Empty CSV file"),
        ("raw/edge.csv.gz", gzip.compress(b"1,2\n1,\n3,4\n0,1\n", mtime=0), "column 1 has a missing value"),
        ("raw/edge.csv.gz", gzip.compress(b"1,2,3\n" * 4, mtime=0), "has 3 columns"),
        ("raw/edge.csv.gz", gzip.compress(b"1,2\n" * 3, mtime=0), "holds 3 rows, but .*num-edge-list.csv.gz says 4"),
        ("raw/num-node-list.csv.gz", gzip.compress(b"5\n6\n", mtime=0), "counts 2 graphs"),
        ("split/time/valid.csv.gz", gzip.compress(b"1\n3\n", mtime=0), "valid.csv.gz: node 3 is in train.csv.gz too"),
        ("split/time/valid.csv.gz", gzip.compress(b"1,2\n", mtime=0), "has 2 columns; expected one"),
        ("raw/num-node-list.csv.gz", gzip.compress(b"-5\n", mtime=0), "num-node-list.csv.gz says -5"),
        ("split/time/train.csv.gz", gzip.compress(b"0\n5\n", mtime=0), "names node 5, but the graph has nodes 0 to 4"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    root = write_homogeneous(tmp_path / "arxiv")
    (root / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_all(root)


@pytest.mark.parametrize("name", ["raw/num-node-list.csv.gz", "raw/num-edge-list.csv.gz", "split/time/valid.csv.gz"])
def test_a_missing_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    root = write_homogeneous(tmp_path / "arxiv")
    (root / name).unlink()
    with pytest.raises(InputError, match=f"{Path(name).name} is missing"):
        open_ogb(root, SPEC)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("num-node-dict.csv.gz", b"author,paper\n3\n", "not a row of names over a row of as many counts"),
        ("num-node-dict.csv.gz", b"author,paper\n3,many\n", "not a row of names"),
        ("triplet-type-list.csv.gz", b"author,writes\n", "row 1 has 2 fields; 3 are expected"),
    ],
)
def test_a_damaged_table_of_types_is_refused(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    root = write_heterogeneous(tmp_path / "mag")
    (root / "raw" / name).write_bytes(gzip.compress(content, mtime=0))
    with pytest.raises(InputError, match=words):
        open_ogb(root, SPEC)


def test_a_damaged_archive_is_refused_by_name(tmp_path: Path) -> None:
    root = write_binary(tmp_path / "npz", Y[:, None])
    content = (root / "raw" / "data.npz").read_bytes()
    (root / "raw" / "data.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"data.npz cannot be read"):
        read_all(root)


def read_all(root: Path) -> None:
    source = open_ogb(root, SPEC)
    for nodes in source.nodes:
        whole_nodes(nodes)
    for edges in source.edges:
        whole_edges(edges)
