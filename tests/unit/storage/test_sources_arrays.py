"""Graphs in .npz and .npy files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.raw_graphs import whole_edges, whole_nodes

from graphsys.core.errors import InputError, NodeIdError
from graphsys.storage.array_files import open_npy, open_npz
from graphsys.storage.sources import GraphSource, SourceSpec
from graphsys.storage.sources_arrays import open_npy_graph, open_npz_graph

EDGES = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])
X = np.arange(12, dtype=np.float32).reshape(4, 3)


def npz(folder: Path, *, compressed: bool = False, **arrays: Any) -> Path:
    path = folder / "graph.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def opened(folder: Path, spec: SourceSpec | None = None, **arrays: Any) -> GraphSource:
    return open_npz_graph(npz(folder, **arrays), spec or SourceSpec())


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.uint64, ">i4"])
def test_edges_of_any_integer_type_are_read(compressed: bool, dtype: Any, tmp_path: Path) -> None:
    path = npz(tmp_path, compressed=compressed, edge_index=EDGES.astype(dtype))
    edges = whole_edges(open_npz_graph(path, SourceSpec()).edges[0])
    assert edges.src.tolist() == EDGES[0].tolist()
    assert edges.dst.tolist() == EDGES[1].tolist()


@pytest.mark.parametrize("edge_index", [EDGES, np.asfortranarray(EDGES), EDGES.T, np.asfortranarray(EDGES.T)])
@pytest.mark.parametrize("compressed", [False, True])
def test_edges_may_lie_in_rows_or_columns_and_in_either_order(
    edge_index: Any, compressed: bool, tmp_path: Path
) -> None:
    edges = whole_edges(
        open_npz_graph(npz(tmp_path, compressed=compressed, edge_index=edge_index), SourceSpec()).edges[0]
    )
    assert edges.src.tolist() == EDGES[0].tolist()
    assert edges.dst.tolist() == EDGES[1].tolist()


def test_src_dst_and_all_that_travels_with_them_are_read(tmp_path: Path) -> None:
    arrays = {"src": EDGES[0], "dst": EDGES[1], "t": np.arange(4) * 10, "edge_weight": np.arange(4) / 2}
    source = opened(tmp_path, **arrays, edge_attr=np.ones((4, 2)), rating=np.arange(4))
    edges = whole_edges(source.edges[0])
    assert source.nodes == ()
    assert source.ignored == ("rating (not used)",)
    assert edges.timestamp is not None
    assert edges.timestamp.tolist() == [0, 10, 20, 30]
    assert edges.weight is not None
    assert edges.weight.tolist() == [0, 0.5, 1, 1.5]
    assert edges.edge_attr is not None
    assert edges.edge_attr.shape == (4, 2)


def test_the_spec_names_arrays_of_another_name(tmp_path: Path) -> None:
    spec = SourceSpec(time="when", weight="rating", label="target", features=("h",), edge_features=("e",))
    arrays = {"when": np.arange(4), "rating": np.arange(4), "target": np.arange(4), "h": X, "e": np.ones((4, 1))}
    source = opened(tmp_path, spec, edge_index=EDGES, **arrays)
    assert source.ignored == ()
    assert whole_nodes(source.nodes[0]).y is not None
    with pytest.raises(InputError, match=r"graph.npz has no array 'h' for features; it has edge_index \[2, 4\]"):
        opened(tmp_path, SourceSpec(features=("h",)), edge_index=EDGES)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("compressed", [False, True])
def test_features_and_labels_come_row_by_row(order: Any, compressed: bool, tmp_path: Path) -> None:
    path = npz(tmp_path, compressed=compressed, edge_index=EDGES, x=np.array(X, order=order), y=np.arange(4))
    nodes = whole_nodes(open_npz_graph(path, SourceSpec()).nodes[0])
    assert nodes.x is not None
    np.testing.assert_array_equal(nodes.x, X)
    assert nodes.y is not None
    assert nodes.y.tolist() == [0, 1, 2, 3]


def csr(**changes: Any) -> dict[str, Any]:
    parts = {"x_indptr": [0, 2, 2, 3, 4], "x_indices": [0, 2, 1, 1], "x_data": [1.0, 2.0, 3.0, 4.0], "x_shape": [4, 3]}
    return {name: np.array(value) for name, value in (parts | changes).items()}


def test_sparse_features_become_dense(tmp_path: Path) -> None:
    nodes = whole_nodes(opened(tmp_path, edge_index=EDGES, **csr()).nodes[0])
    assert nodes.x is not None
    assert nodes.x.tolist() == [[1, 0, 2], [0, 0, 0], [0, 3, 0], [0, 4, 0]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_indices": [0, 2, 3, 1]}, "row 2 names a column outside"),
        ({"x_indices": [0, 2, 1, -1]}, "row 3 names a column outside"),
        ({"x_indptr": [0, 2, 1, 3, 4]}, "descends at row 1"),
        ({"x_indptr": [1, 2, 2, 3, 4]}, "begins with 1"),
        ({"x_indptr": [0, 2, 2, 3, 3]}, "ends with 3"),
        ({"x_indptr": [0, 2, 2, 3, 9]}, "reaches 9"),
        ({"x_indptr": [0, 2, 4]}, "has 3 entries; expected 5"),
        ({"x_data": [1.0]}, "x_indices has 4 entries and"),
        ({"x_shape": [4]}, "expected rows and columns"),
        ({"x_data": ["a", "b", "c", "d"]}, "expected numbers"),
    ],
)
def test_sparse_parts_that_contradict_each_other_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        whole_nodes(opened(tmp_path, edge_index=EDGES, **csr(**changes)).nodes[0])


def test_a_missing_sparse_part_is_named(tmp_path: Path) -> None:
    parts = csr()
    del parts["x_data"]
    with pytest.raises(InputError, match="no array 'x_data' for sparse features"):
        opened(tmp_path, edge_index=EDGES, **parts)


@pytest.mark.parametrize("suffix", ["", "_mask", "_idx"])
def test_splits_are_indices_or_masks(suffix: str, tmp_path: Path) -> None:
    picks = {"train": [0, 2], "val": [1], "test": [3]}
    arrays: dict[str, Any] = {f"{name}{suffix}": np.array(nodes) for name, nodes in picks.items()}
    if suffix == "_mask":
        arrays = {name: np.isin(np.arange(4), nodes) for name, nodes in arrays.items()}
    nodes = whole_nodes(opened(tmp_path, edge_index=EDGES, y=np.arange(4), **arrays).nodes[0])
    assert nodes.split is not None
    assert nodes.split.tolist() == [1, 2, 1, 3]


@pytest.mark.parametrize("by_rows", [False, True])
def test_one_of_several_splits_is_chosen_and_the_choice_is_told(by_rows: bool, tmp_path: Path) -> None:
    masks = np.eye(3, 4, dtype=bool)
    stored = masks if by_rows else masks.T
    source = opened(tmp_path, SourceSpec(split_index=2), edge_index=EDGES, y=np.arange(4), train_masks=stored)
    nodes = whole_nodes(source.nodes[0])
    assert nodes.split is not None
    assert nodes.split.tolist() == [0, 0, 1, 0]
    assert source.ignored == ("train_masks (split 2 of 3 is used)",)
    with pytest.raises(InputError, match="holds 3 splits; split 3 is not among 0 to 2"):
        opened(tmp_path, SourceSpec(split_index=3), edge_index=EDGES, y=np.arange(4), train_masks=stored)


def test_pairs_of_node_and_label_become_sets_of_labels(tmp_path: Path) -> None:
    nodes = whole_nodes(opened(tmp_path, edge_index=EDGES, labels=np.array([[3, 0, 3], [0, 1, 2]])).nodes[0])
    assert nodes.y is not None
    assert nodes.y.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": X}, InputError, "has no edges: expected 'edge_index'"),
        ({"edge_index": np.zeros((3, 4), int)}, InputError, r"shape \[3, 4\]; expected \[2, E\]"),
        ({"edge_index": EDGES, "x": X, "y": np.zeros(5, int)}, InputError, "x says 4 nodes and .*y says 5"),
        ({"edge_index": EDGES, "x": X, "num_nodes": 3}, InputError, "x says 4 nodes and .*num_nodes says 3"),
        ({"edge_index": EDGES, "t": np.zeros(3, int)}, InputError, "t has 3 rows for 4 edges"),
        ({"edge_index": EDGES, "y": np.zeros(4, int), "train": [0, 1], "test": [1]}, InputError, "node 1 is in train"),
        ({"edge_index": EDGES, "y": np.zeros(4, int), "val": [4]}, NodeIdError, r"entry 0 is node 4, outside \[0, 4\)"),
        ({"edge_index": EDGES, "y": np.zeros(4, int), "train": [0.5]}, InputError, "expected whole numbers"),
        ({"edge_index": EDGES, "labels": np.array([[-1], [0]])}, NodeIdError, "node -1 is outside"),
        ({"src": EDGES[0], "dst": EDGES[1][:3]}, InputError, "dst has 3 rows for 4 edges"),
        ({"src": EDGES[0], "dst": -EDGES[1]}, NodeIdError, "edge 0 has the dst -1"),
    ],
)
def test_arrays_that_cannot_be_used_are_refused_by_name(
    arrays: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        whole_edges(opened(tmp_path, **arrays).edges[0])


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", edge_index=EDGES, x=np.array([{}, {}], object), allow_pickle=True)
    with pytest.raises(InputError, match="'x' holds Python objects, which are never loaded"):
        open_npz(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="never loaded"):
        open_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_archive_is_refused(keep: float, compressed: bool, tmp_path: Path) -> None:
    path = npz(tmp_path, compressed=compressed, edge_index=np.arange(2000).reshape(2, 1000))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(InputError, match=r"graph\.npz cannot be read"):
        whole_edges(open_npz_graph(path, SourceSpec()).edges[0])


def test_a_flipped_byte_in_an_archive_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = npz(tmp_path, edge_index=np.arange(2000).reshape(2, 1000))
    raw = bytearray(path.read_bytes())
    raw[9000] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="Bad CRC-32"):
        whole_edges(open_npz_graph(path, SourceSpec()).edges[0])


def test_a_truncated_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "edges.npy"
    np.save(path, EDGES)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match="is truncated: 184 bytes found, 192 expected"):
        open_npy(path)


def test_single_npy_files_hold_edges_and_features(tmp_path: Path) -> None:
    np.save(tmp_path / "edges.npy", EDGES.T)
    np.save(tmp_path / "x.npy", X)
    source = open_npy_graph(tmp_path / "edges.npy", tmp_path / "x.npy", SourceSpec())
    assert [path.name for path in source.files] == ["edges.npy", "x.npy"]
    assert whole_edges(source.edges[0]).dst.tolist() == EDGES[1].tolist()
    assert whole_nodes(source.nodes[0]).num_rows == 4
