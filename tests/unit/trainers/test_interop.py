import os
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.raw_graphs import whole_edges, whole_nodes
from torch_geometric.data import Data, HeteroData
from torch_geometric.transforms import ToSparseTensor

import graphsys
from graphsys.core.errors import DiskError, InputError, StaleArtefactError
from graphsys.trainers.interop import dgl_source, from_dgl, from_pyg, load_graph_file, pyg_source

EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 3]])
X = torch.arange(8.0).reshape(4, 2)


@pytest.fixture
def dgl() -> Any:
    os.environ.setdefault("DGLBACKEND", "pytorch")
    return pytest.importorskip("dgl")


def graph(**more: Any) -> Data:
    return Data(
        x=X,
        edge_index=EDGES,
        y=torch.tensor([0, 1, 1, 0]),
        train_mask=torch.tensor([True, False, False, False]),
        val_mask=torch.tensor([False, True, False, False]),
        test_mask=torch.tensor([False, False, True, False]),
        **more,
    )


def hetero_graph() -> HeteroData:
    data = HeteroData()
    data["paper"].x = X
    data["paper"].y = torch.tensor([0, 1, 1, 0])
    data["author"].num_nodes = 3
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 2], [3, 1]])
    data["paper", "cites", "paper"].edge_index = EDGES
    data["paper", "cites", "paper"].time = torch.tensor([5, 6, 7, 8])
    return data


def test_a_pyg_graph_becomes_one_table_of_nodes_and_one_of_edges() -> None:
    edge_values = {"edge_attr": torch.arange(4.0), "edge_weight": torch.ones(4), "time": torch.arange(4)}
    source = pyg_source(Data(edge_index=EDGES, num_nodes=5, name="cora", **edge_values))
    edges = whole_edges(source.edges[0])
    np.testing.assert_array_equal(edges.src, EDGES[0])
    np.testing.assert_array_equal(edges.dst, EDGES[1])
    np.testing.assert_array_equal(edges.timestamp, [0, 1, 2, 3])
    np.testing.assert_array_equal(edges.weight, np.ones(4))
    np.testing.assert_array_equal(edges.edge_attr, np.arange(4.0)[:, None])
    assert source.nodes[0].num_nodes == 5
    assert source.ignored == ("node type 'node': name (the store has no place for it)",)


def test_masks_become_split_codes_and_labels_keep_their_type() -> None:
    nodes = whole_nodes(pyg_source(graph()).nodes[0])
    np.testing.assert_array_equal(nodes.x, X)
    np.testing.assert_array_equal(nodes.split, [1, 2, 3, 0])
    assert nodes.y is not None
    assert nodes.y.dtype == np.int64


def test_as_many_nodes_as_edges_are_told_apart() -> None:
    source = pyg_source(graph(edge_attr=torch.arange(4.0)))
    np.testing.assert_array_equal(whole_nodes(source.nodes[0]).x, X)
    np.testing.assert_array_equal(whole_edges(source.edges[0]).edge_attr, np.arange(4.0)[:, None])
    assert source.ignored == ()


def test_one_column_of_several_masks_is_chosen_by_its_index() -> None:
    masks = torch.eye(4, dtype=torch.bool)
    data = Data(x=X, edge_index=EDGES, train_mask=masks[:, :2], val_mask=masks[:, 2:])
    np.testing.assert_array_equal(whole_nodes(pyg_source(data, split_index=1).nodes[0]).split, [0, 1, 0, 2])
    with pytest.raises(InputError, match="train_mask holds 2 splits, split_index is 2"):
        pyg_source(data, split_index=2)


def test_label_sets_may_be_floats_and_bfloat16_features_are_widened() -> None:
    data = Data(x=X.bfloat16(), edge_index=EDGES, y=torch.eye(4)[:, :3])
    nodes = whole_nodes(pyg_source(data).nodes[0])
    assert nodes.x is not None
    assert nodes.x.dtype == np.float32
    assert nodes.y is not None
    assert nodes.y.dtype == np.uint8


def test_values_stay_values() -> None:
    labels = whole_nodes(pyg_source(Data(x=X, edge_index=EDGES, y=torch.tensor([0.0, 1.0, 1.0, 0.0]))).nodes[0]).y
    assert labels is not None
    assert labels.dtype == np.float32


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # torch says that its sparse tensors are in beta
def test_an_adjacency_matrix_gives_the_same_edges_as_an_edge_index() -> None:
    data = ToSparseTensor(layout=torch.sparse_csr)(Data(x=X, edge_index=EDGES))
    edges = whole_edges(pyg_source(data).edges[0])
    assert sorted(zip(edges.src.tolist(), edges.dst.tolist(), strict=True)) == sorted(map(tuple, EDGES.T.tolist()))
    assert edges.weight is None


def test_a_heterogeneous_graph_keeps_its_types() -> None:
    source = pyg_source(hetero_graph())
    assert [(table.node_type, table.num_nodes) for table in source.nodes] == [("paper", 4), ("author", 3)]
    assert [table.edge_type for table in source.edges] == [("author", "writes", "paper"), ("paper", "cites", "paper")]
    assert whole_nodes(source.nodes[1]).x is None
    np.testing.assert_array_equal(whole_edges(source.edges[1]).timestamp, [5, 6, 7, 8])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Data(x=X), "has no edge_index"),
        (Data(x=X, edge_index=EDGES[0]), r"edge_index is \(4,\); expected a tensor \[2, E\]"),
        (Data(x=X, edge_index=EDGES, y=torch.zeros(3)), r"y has shape \(3,\); expected 4 rows"),
        (
            Data(x=X, edge_index=EDGES, train_mask=torch.ones(4).bool(), test_mask=torch.ones(4).bool()),
            "node 0 is in train_mask and in test_mask",
        ),
        (Data(x="text", edge_index=EDGES, num_nodes=4), "x is of type str"),
    ],
)
def test_a_graph_that_cannot_be_used_is_refused_by_attribute(data: Data, words: str) -> None:
    with pytest.raises(InputError, match=words):
        pyg_source(data)


def test_from_pyg_makes_a_store_and_skips_the_same_graph(tmp_path: Path) -> None:
    store = from_pyg(graph(), tmp_path / "s.gs", memory="64MiB", undirected=True)
    assert store.node_types["node"].num_nodes == 4
    np.testing.assert_array_equal(store.features("node").read(), X)
    np.testing.assert_array_equal(store.split("node", "val"), [1])
    assert from_pyg(graph(), tmp_path / "s.gs", memory="64MiB", undirected=True).fingerprint == store.fingerprint
    with pytest.raises(StaleArtefactError, match="--overwrite"):
        from_pyg(graph(), tmp_path / "s.gs", memory="64MiB")
    replaced = from_pyg(graph(), tmp_path / "s.gs", memory="64MiB", overwrite=True)
    assert replaced.fingerprint != store.fingerprint


def test_the_functions_are_public() -> None:
    assert graphsys.from_pyg is from_pyg
    assert graphsys.from_dgl is from_dgl


def dgl_graph(dgl: Any) -> Any:
    made = dgl.graph((EDGES[0], EDGES[1]), num_nodes=5)
    made.ndata["feat"] = torch.arange(10.0).reshape(5, 2)
    made.ndata["label"] = torch.arange(5)
    made.ndata["train_mask"] = torch.arange(5) == 2
    made.edata["weight"] = torch.arange(4.0)
    made.edata["feat"] = torch.ones(4, 3)
    made.edata["colour"] = torch.ones(4)
    return made


def test_a_dgl_graph_becomes_one_table_of_nodes_and_one_of_edges(dgl: Any) -> None:
    source = dgl_source(dgl_graph(dgl))
    nodes, edges = whole_nodes(source.nodes[0]), whole_edges(source.edges[0])
    assert (source.nodes[0].node_type, source.edges[0].edge_type) == ("node", ("node", "to", "node"))
    np.testing.assert_array_equal(nodes.x, np.arange(10.0).reshape(5, 2))
    np.testing.assert_array_equal(nodes.y, np.arange(5))
    np.testing.assert_array_equal(nodes.split, [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(edges.src, EDGES[0])
    np.testing.assert_array_equal(edges.weight, np.arange(4.0))
    np.testing.assert_array_equal(edges.edge_attr, np.ones((4, 3)))
    assert source.ignored == ("edge type 'node__to__node': colour (the store has no place for it)",)


def test_a_heterogeneous_dgl_graph_keeps_its_types(dgl: Any) -> None:
    edges = {("author", "writes", "paper"): ([0, 2], [3, 1]), ("paper", "cites", "paper"): ([0], [1])}
    source = dgl_source(dgl.heterograph(edges))
    assert [(table.node_type, table.num_nodes) for table in source.nodes] == [("author", 3), ("paper", 4)]
    assert [table.edge_type for table in source.edges] == [("author", "writes", "paper"), ("paper", "cites", "paper")]


def test_pyg_and_dgl_give_the_same_store(dgl: Any, tmp_path: Path) -> None:
    made = dgl.graph((EDGES[0], EDGES[1]), num_nodes=4)
    made.ndata["x"], made.ndata["y"] = X, torch.tensor([0, 1, 1, 0])
    for name in ("train", "val", "test"):
        made.ndata[f"{name}_mask"] = graph()[f"{name}_mask"]
    one = from_dgl(made, tmp_path / "dgl.gs", memory="64MiB")
    two = from_pyg(graph(), tmp_path / "pyg.gs", memory="64MiB")
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("content", ["data", "hetero", "dict", "dataset"])
def test_a_saved_pyg_graph_is_opened(tmp_path: Path, content: str) -> None:
    saved: dict[str, Any] = {
        "data": graph(),
        "hetero": hetero_graph(),
        "dict": graph().to_dict(),
        "dataset": (graph().to_dict(), None, Data),
    }
    torch.save(saved[content], tmp_path / "graph.pt")
    source = load_graph_file(tmp_path / "graph.pt")
    np.testing.assert_array_equal(whole_nodes(source.nodes[0]).x, X)
    assert source.files == (tmp_path / "graph.pt",)


def test_a_saved_data_set_of_one_heterogeneous_graph_is_opened(tmp_path: Path) -> None:
    torch.save((hetero_graph().to_dict(), None, HeteroData), tmp_path / "graph.pt")
    assert [table.node_type for table in load_graph_file(tmp_path / "graph.pt").nodes] == ["paper", "author"]


def test_a_saved_dgl_graph_is_opened(dgl: Any, tmp_path: Path) -> None:
    dgl.save_graphs(str(tmp_path / "graph.bin"), [dgl_graph(dgl)])
    np.testing.assert_array_equal(whole_nodes(load_graph_file(tmp_path / "graph.bin").nodes[0]).y, np.arange(5))
    dgl.save_graphs(str(tmp_path / "graph.bin"), [dgl_graph(dgl)] * 2)
    with pytest.raises(InputError, match="holds 2 graphs"):
        load_graph_file(tmp_path / "graph.bin")


def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path: Path) -> None:
    torch.save({"edge_index": EDGES, "home": pathlib.PurePosixPath("x")}, tmp_path / "graph.pt")
    with pytest.raises(InputError, match=r"holds objects of pathlib\.PurePosixPath, which would run code"):
        load_graph_file(tmp_path / "graph.pt")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.zeros(3), "holds Tensor, not one graph"),
        ({"x": X}, "holds dict, not one graph"),
        ((graph().to_dict(), {"x": [0, 2, 4]}, Data), "holds tuple, not one graph"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: Any, words: str) -> None:
    torch.save(content, tmp_path / "graph.pt")
    with pytest.raises(InputError, match=words):
        load_graph_file(tmp_path / "graph.pt")


@pytest.mark.parametrize("name", ["graph.pt", "graph.bin"])
def test_a_damaged_file_is_refused(dgl: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".pt"):
        torch.save(graph(), path)
    else:
        dgl.save_graphs(str(path), [dgl_graph(dgl)])
    whole = path.read_bytes()
    for content in (b"", b"hello world", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match=str(path)):
            load_graph_file(path)
    path.unlink()
    with pytest.raises(DiskError, match="no such file"):
        load_graph_file(path)
