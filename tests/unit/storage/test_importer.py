"""Importing a whole graph: what is written, what is refused, what is skipped."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zarr
from helpers.graphs import MEMORY, tiny_graph, tiny_store
from helpers.refusals import snapshot

from graphsys.core.errors import (
    ArtefactError,
    ConfigError,
    InputError,
    MemoryBudgetError,
    NodeIdError,
    StaleArtefactError,
)
from graphsys.core.types import EdgeType
from graphsys.core.units import MIB
from graphsys.storage.importer import ImportOptions, ImportSummary, import_graph
from graphsys.storage.manifest import verify_folder
from graphsys.storage.memory_source import edge_table, graph_in_memory, homogeneous, node_table
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import GraphSource, SourceSpec
from graphsys.storage.store import Store

RING: EdgeType = ("node", "to", "node")
EDGES = np.array([[0, 1, 2, 3], [1, 2, 3, 0]])


def ring(**node_arrays: Any) -> GraphSource:
    return homogeneous(EDGES, num_nodes=4, **node_arrays)


def imported(folder: Path, source: GraphSource, **options: Any) -> tuple[Store, ImportSummary]:
    summary = import_graph(source, folder / "out.gs", ImportOptions(memory=MEMORY, **options))
    return Store.open(folder / "out.gs"), summary


def test_a_store_holds_what_was_given(tmp_path: Path) -> None:
    graph = tiny_graph()
    store = Store.open(tiny_store(tmp_path))
    topology = store.topology(store.edge_type_within("node"))
    order = np.lexsort(graph.edge_index)
    np.testing.assert_array_equal(topology.indices, graph.edge_index[0][order])
    np.testing.assert_array_equal(np.diff(topology.indptr), np.bincount(graph.edge_index[1], minlength=200))
    np.testing.assert_array_equal(store.features("node").read(), graph.x)
    np.testing.assert_array_equal(store.labels("node"), graph.y)
    np.testing.assert_array_equal(store.split("node", "val"), np.flatnonzero(graph.split == 2))
    assert topology.indices.dtype == np.int32
    verify_folder(store.path, store.manifest)


def test_any_zarr_reader_opens_a_store(tmp_path: Path) -> None:
    group = zarr.open_group(tiny_store(tmp_path), mode="r")
    np.testing.assert_array_equal(np.asarray(group["nodes/node/x"]), tiny_graph().x)
    assert np.asarray(group["topology/node__to__node/indptr"])[-1] == 1600
    nodes = group["nodes/node"]
    assert isinstance(nodes, zarr.Group)
    assert set(nodes.array_keys()) == {"x", "y", "split"}


def test_a_graph_of_several_types_keeps_them_apart(tmp_path: Path) -> None:
    users, items = pa.array(["ann", "bob", "cy"]), np.array([70, 50])
    rates: EdgeType = ("user", "rates", "item")
    source = graph_in_memory(
        (node_table("user", 3, ids=users), node_table("item", 2, ids=items, x=np.array([[7.0], [5.0]]))),
        (
            edge_table(rates, pa.array(["bob", "ann"]), pa.array([50, 70]), weight=np.array([2, 4])),
            edge_table(("user", "knows", "user"), pa.array(["ann"]), pa.array(["cy"]), timestamp=np.array([99])),
        ),
        "a shop",
    )
    store, summary = imported(tmp_path, source, edge_ids=True, undirected=True)
    assert set(store.edge_types) == {rates, ("item", "rev_rates", "user"), ("user", "knows", "user")}
    assert summary.edges["user__knows__user"]["reverse_edges_added"] == 1
    topology = store.topology(rates)
    assert topology.indptr.tolist() == [0, 1, 2]
    assert topology.indices.tolist() == [0, 1]
    assert topology.weight is not None
    assert topology.weight.tolist() == [4, 2]
    assert topology.edge_id is not None
    assert topology.edge_id.tolist() == [1, 0]
    held = store.topology(rates, in_memory=True)  # private arrays may be written, maps may not
    assert (held.indptr.flags.writeable, held.indices.flags.writeable) == (True, True)
    assert held.weight is not None
    assert (held.weight.flags.writeable, held.weight.tolist()) == (False, [4, 2])
    back = store.topology(("item", "rev_rates", "user"))
    assert (back.indptr.tolist(), back.indices.tolist()) == ([0, 1, 2, 2], [0, 1])
    known = store.topology(("user", "knows", "user"))
    assert known.timestamp is not None
    assert known.timestamp.tolist() == [99, 99]
    assert store.id_map("user").to_external(np.array([2])) == ["cy"]
    assert store.node_types["item"].id_kind == "integer"


def test_a_type_without_a_table_gets_the_ids_of_its_edges(tmp_path: Path) -> None:
    source = graph_in_memory((), (edge_table(RING, np.array([30, 10]), np.array([20, 30])),), "three")
    store, summary = imported(tmp_path, source)
    assert summary.nodes["node"]["num_nodes"] == 3
    assert store.id_map("node").to_external(np.arange(3)) == [10, 20, 30]
    assert store.topology(RING).indices.tolist() == [2, 0]


def test_rows_are_normalised_where_asked(tmp_path: Path) -> None:
    x = np.array([[1, 3], [0, 0], [-2, 2], [5, 0]])
    store, _ = imported(tmp_path, ring(x=x), normalize="row")
    assert store.features("node").read().tolist() == [[0.25, 0.75], [0, 0], [-0.5, 0.5], [1, 0]]


@pytest.mark.parametrize(
    ("y", "kind", "classes"),
    [
        (np.array([0, 2, -1, 1]), "class", 3),
        (np.array([[0], [2], [1], [1]]), "class", 3),
        (np.array([[0, 1], [1, 1], [0, 0], [1, 0]]), "multilabel", 2),
        (np.array([0.5, np.nan, 1, 2]), "value", 1),
        (np.ones((4, 3), np.float32), "value", 3),
    ],
)
def test_labels_are_of_the_kind_their_type_tells(y: Any, kind: str, classes: int, tmp_path: Path) -> None:
    store, _ = imported(tmp_path, ring(y=y))
    assert (store.node_type().label_kind, store.node_type().num_classes) == (kind, classes)
    np.testing.assert_array_equal(store.labels("node"), y[:, 0] if y.shape == (4, 1) else y)


def test_names_of_classes_are_kept(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("src,dst\n0,1\n")
    (tmp_path / "nodes.csv").write_text("id,topic\n0,zoo\n1,art\n")
    spec = SourceSpec(nodes=tmp_path / "nodes.csv", label="topic")
    store, _ = imported(tmp_path, open_source(tmp_path / "edges.csv", spec))
    assert store.class_names("node") == ("art", "zoo")
    assert store.labels("node").tolist() == [1, 0]


NAN_AT_2 = np.array([[0.0], [0], [np.nan], [0]])
BAD_NODES: dict[str, tuple[dict[str, Any], str]] = {
    "NaN": ({"x": NAN_AT_2}, "feature 0 of node 2 is NaN"),
    "infinite": ({"x": np.array([[0.0], [-np.inf], [0], [0]])}, "feature 0 of node 1 is infinite"),
    "beyond float32": ({"x": np.array([[0.0], [0], [0], [1e39]])}, r"feature 0 of node 3 is 1e\+39, beyond float32"),
    "text": ({"x": np.array([["a"]] * 4)}, "of type <U1; expected numbers"),
    "one-dimensional": ({"x": np.arange(4)}, r"features have shape \(4,\)"),
    "label -2": ({"y": np.array([0, -2, 0, 0])}, "the label of node 1 is -2"),
    "label far away": ({"y": np.array([0, 0, 10**7, 0])}, "the label of node 2 is 10000000, out of range"),
    "label 2 of a set": ({"y": np.array([[0, 1], [1, 2], [0, 0], [0, 0]])}, "label 1 of node 1 is 2; expected 0 or 1"),
    "text labels": ({"y": np.array(["a", "b", "c", "d"])}, "labels have shape"),
    "infinite value": ({"y": np.array([0, 1, np.inf, 2])}, "label 0 of node 2 is infinite"),
    "no label in a split": (
        {"y": np.array([0, -1, 0, 0]), "split": np.array([1, 2, 0, 0], np.uint8)},
        "node 1 is in a split but has no label",
    ),
    "splits without labels": ({"split": np.array([1, 2, 0, 0], np.uint8)}, "has splits but no labels"),
    "split 4": ({"y": np.zeros(4, int), "split": np.array([4, 0, 0, 0], np.uint8)}, "the split of node 0 is 4"),
    "too few rows": ({"x": np.zeros((3, 1))}, "x has 3 rows where there are 4 nodes"),
}


@pytest.mark.parametrize(("arrays", "message"), BAD_NODES.values(), ids=BAD_NODES)
def test_nodes_that_cannot_be_used_are_refused_by_name_and_nothing_is_left(
    arrays: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        imported(tmp_path, ring(**arrays))
    assert list(tmp_path.iterdir()) == []


def test_faults_name_nodes_by_their_external_ids(tmp_path: Path) -> None:
    table = node_table("paper", 4, ids=pa.array(["a", "b", "c", "d"]), x=NAN_AT_2)
    with pytest.raises(InputError, match="feature 0 of node 'c' is NaN"):
        imported(tmp_path, graph_in_memory((table,), (), "bad"))


BAD_EDGES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "too large": ({"dst": [1, 4]}, NodeIdError, r"the destination of edge 1 is 4, outside \[0, 4\)"),
    "negative": ({"src": [0, -1]}, NodeIdError, "the source of edge 1 is -1, outside"),
    "NaN weight": ({"weight": [1.0, np.nan]}, InputError, "the weight of edge 1 is NaN"),
    "time beyond int64": (
        {"timestamp": np.array([1, 2**63], np.uint64)},
        InputError,
        "the time of edge 1 is 9223372036",
    ),
    "broken time": ({"timestamp": [0.5, 1.0]}, InputError, "the time of edge 0 is 0.5; expected a whole number"),
    "infinite feature": ({"edge_attr": [[0.0, 0], [0, np.inf]]}, InputError, "feature 1 of edge 1 is infinite"),
    "flat features": ({"edge_attr": [1.0, 2.0]}, InputError, r"edge features have shape \(2,\)"),
}


@pytest.mark.parametrize(("columns", "error", "message"), BAD_EDGES.values(), ids=BAD_EDGES)
def test_edges_that_cannot_be_used_are_refused_by_row_and_nothing_is_left(
    columns: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    arrays = {name: np.array(values) for name, values in ({"src": [0, 1], "dst": [1, 2]} | columns).items()}
    table = edge_table(RING, arrays.pop("src"), arrays.pop("dst"), **arrays)
    with pytest.raises(error, match=message):
        imported(tmp_path, graph_in_memory((node_table("node", 4),), (table,), "bad"))
    assert list(tmp_path.iterdir()) == []


def test_an_edge_to_an_unknown_node_is_refused_by_name(tmp_path: Path) -> None:
    nodes = node_table("node", 2, ids=pa.array(["a", "b"]))
    edges = edge_table(RING, pa.array(["a", "a"]), pa.array(["b", "z"]))
    with pytest.raises(NodeIdError, match="destination of edge 1 is 'z', which is no id of node type 'node'"):
        imported(tmp_path, graph_in_memory((nodes,), (edges,), "bad"))


def test_a_duplicate_edge_is_refused_by_external_ids_where_asked(tmp_path: Path) -> None:
    edges = edge_table(RING, np.array([70, 90, 70]), np.array([90, 70, 90]))
    with pytest.raises(InputError, match="the edge from 70 to 90 is given twice"):
        imported(tmp_path, graph_in_memory((), (edges,), "bad"), duplicates="error")


def test_times_and_added_self_loops_exclude_each_other(tmp_path: Path) -> None:
    edges = edge_table(RING, np.array([0]), np.array([1]), timestamp=np.array([5]))
    with pytest.raises(ConfigError, match="self_loops: add"):
        imported(tmp_path, graph_in_memory((), (edges,), "bad"), self_loops="add")


@pytest.mark.parametrize("name", ["", "a__b", "a/b", "..", ".hidden", "_a", "a_"])
def test_names_that_would_not_be_told_apart_on_disk_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"the name '{re.escape(name)}' of a node type cannot be used"):
        imported(tmp_path, graph_in_memory((node_table(name, 2),), (), "bad"))
    assert list(tmp_path.iterdir()) == []


def test_a_type_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="node type node is given twice"):
        imported(tmp_path, graph_in_memory((node_table("node", 2), node_table("node", 3)), (), "bad"))


def test_too_small_a_budget_is_refused_with_one_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="give at least --memory 64MiB"):
        import_graph(ring(), tmp_path / "out.gs", ImportOptions(memory=8 * MIB))
    assert list(tmp_path.iterdir()) == []


def npz(folder: Path, **arrays: Any) -> GraphSource:
    np.savez(folder / "graph.npz", allow_pickle=False, edge_index=EDGES, **arrays)
    return open_source(folder / "graph.npz", SourceSpec())


def test_an_unchanged_import_is_skipped_whatever_the_budget(tmp_path: Path) -> None:
    source, out = npz(tmp_path), tmp_path / "out.gs"
    first = import_graph(source, out, ImportOptions(memory=MEMORY))
    before = snapshot(out)
    again = import_graph(source, out, ImportOptions(memory=2 * MEMORY))
    assert (first.skipped, again.skipped) == (False, True)
    assert again.report.skipped
    assert (again.fingerprint, again.nodes, again.edges) == (first.fingerprint, first.nodes, first.edges)
    assert snapshot(out) == before


@pytest.mark.parametrize(("change", "what"), [("file", "files"), ("option", "options")])
def test_another_import_replaces_a_store_only_when_told_to(change: str, what: str, tmp_path: Path) -> None:
    out = tmp_path / "out.gs"
    first = import_graph(npz(tmp_path), out, ImportOptions(memory=MEMORY))
    source = npz(tmp_path, y=np.arange(4)) if change == "file" else npz(tmp_path)
    options = ImportOptions(memory=MEMORY, undirected=change == "option")
    with pytest.raises(StaleArtefactError, match=f"made from other {what}; choose another --out, or pass --overwrite"):
        import_graph(source, out, options)
    assert Store.open(out).fingerprint == first.fingerprint
    second = import_graph(source, out, options, overwrite=True)
    assert Store.open(out).fingerprint == second.fingerprint != first.fingerprint


def test_a_graph_in_memory_is_known_again_by_its_values(tmp_path: Path) -> None:
    assert not imported(tmp_path, ring(x=np.ones((4, 1))))[1].skipped
    assert imported(tmp_path, ring(x=np.ones((4, 1))))[1].skipped
    with pytest.raises(StaleArtefactError):
        imported(tmp_path, ring(x=np.zeros((4, 1))))


def test_overwriting_spares_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("years of work")
    with pytest.raises(ArtefactError, match="is not a store; --overwrite replaces stores only"):
        import_graph(ring(), tmp_path / "thesis", ImportOptions(memory=MEMORY), overwrite=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "years of work"


def test_the_store_does_not_depend_on_where_the_files_lie_or_on_memory(tmp_path: Path) -> None:
    fingerprints = []
    for name, memory in (("a", MEMORY), ("b", 4 * MEMORY)):
        folder = tmp_path / name
        folder.mkdir()
        summary = import_graph(npz(folder), folder / "out.gs", ImportOptions(memory=memory))
        fingerprints.append(summary.fingerprint)
        assert Store.open(folder / "out.gs").manifest.parents.keys() == {"file:graph.npz"}
    assert fingerprints[0] == fingerprints[1]


def test_what_was_not_used_is_told(tmp_path: Path) -> None:
    summary = import_graph(npz(tmp_path, extra=np.arange(3)), tmp_path / "out.gs", ImportOptions(memory=MEMORY))
    assert summary.as_dict()["ignored"] == ["extra (not used)"]
    assert summary.report.useful_bytes > 0
