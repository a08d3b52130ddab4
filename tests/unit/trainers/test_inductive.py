"""New nodes get the vectors that training's own network gives them over the stored graph."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.graphs import tiny_store
from helpers.pipelines import pipeline_run, pipeline_store
from helpers.trained import make_run, train_nothing
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from graphsys.core.config import RunConfig
from graphsys.core.errors import CorruptError, InputError, StaleArtefactError
from graphsys.core.types import NodeIds
from graphsys.models.aggregate import sum_neighbors
from graphsys.models.base import LayerHop, LayerwiseModel
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.flat import chunk_file
from graphsys.storage.store import Store
from graphsys.trainers.embed import embed
from graphsys.trainers.inductive import InductiveModel, open_inductive
from graphsys.trainers.inference import layer_folder
from graphsys.trainers.new_nodes import NewNodes, together
from graphsys.trainers.run_folder import RunFolder


class TwoConvs(nn.Module):
    """A user's network in PyG style."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = SAGEConv(in_channels, hidden_channels)
        self.second = SAGEConv(hidden_channels, out_channels)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x, edge_index).relu(), edge_index)
        return out


class SumLayers(LayerwiseModel):
    """A user's network whose layers run one at a time, and are no sums of messages as far as anyone knows."""

    def __init__(self, in_channels: int, hidden_channels: int, out_channels: int) -> None:
        super().__init__()
        self.num_layers = 2
        self.lins = nn.ModuleList([nn.Linear(in_channels, hidden_channels), nn.Linear(hidden_channels, out_channels)])

    def forward_layer(self, index: int, x: Tensor, hop: LayerHop) -> Tensor:
        total, own = sum_neighbors(x, hop)
        out: Tensor = torch.tanh(self.lins[index](total / 8 + own))
        return out


USER: dict[str, dict[str, Any]] = {
    "pyg": {"class": f"{__name__}:TwoConvs", "hidden": 8},
    "layerwise": {"class": f"{__name__}:SumLayers", "hidden": 8},
}
DEEP = ("deep_gcn", "deep_sage", "gcnii", "resgcn")


def in_edges(store: Store, node: NodeIds) -> tuple[NodeIds, NodeIds]:
    """Return the in-edges of ``node`` as (place in ``node``, known source)."""
    topology = store.topology(store.edge_type_within("node"))
    lists = [topology.indices[topology.indptr[i] : topology.indptr[i + 1]] for i in node]
    return np.repeat(np.arange(len(node)), [len(each) for each in lists]), np.concatenate(lists).astype(np.int64)


def as_new(store: Store, node: NodeIds) -> NewNodes:
    """Return stored nodes as if they were new: their own features and in-edges, in another order."""
    new, known = in_edges(store, node)
    order = np.random.default_rng(0).permutation(new.shape[0])
    return NewNodes(x=store.features("node").read()[node], new=new[order], known=known[order])


def opened(run: RunConfig) -> tuple[InductiveModel, EmbeddingTable, Store]:
    train_nothing(run)
    table = embed(run).table
    return open_inductive(run, table), table, Store.open(run.store)


@pytest.mark.parametrize("name", ["sage", "gcn", "gat", "gin", *USER])
@pytest.mark.parametrize("undirected", [False, True])
def test_a_stored_node_taken_for_new_gets_its_stored_vector(tmp_path: Path, name: str, undirected: bool) -> None:
    store = tiny_store(tmp_path, undirected=undirected)
    model, table, held = opened(make_run(store, tmp_path / "run", model=USER.get(name, {"name": name, "hidden": 8})))
    node = np.arange(held.node_types["node"].num_nodes)
    found = model.infer(as_new(held, node), predict=True)
    stored = table.take(node)
    np.testing.assert_allclose(found.vectors, stored, rtol=1e-5, atol=1e-5)
    assert found.predictions is not None
    np.testing.assert_allclose(found.predictions, model.predict(node), atol=1e-5)
    np.testing.assert_allclose(model.predict(node).sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("name", DEEP)
def test_so_does_one_of_a_deep_network_on_the_whole_graph(tmp_path: Path, name: str) -> None:
    run = pipeline_run(pipeline_store(tmp_path), tmp_path / "run", model={"name": name})
    model, table, held = opened(run)
    node = np.arange(0, 120, 7)
    np.testing.assert_allclose(model.infer(as_new(held, node)).vectors, table.take(node), rtol=1e-5, atol=1e-5)


def test_a_table_of_an_inner_layer_gets_vectors_of_that_layer_and_predictions_of_the_last(tmp_path: Path) -> None:
    run = make_run(tiny_store(tmp_path), tmp_path / "run", embed={"layer": 1})
    model, table, held = opened(run)
    node = np.array([5, 9])
    found = model.infer(as_new(held, node), predict=True)
    assert found.vectors.shape == (2, table.dim) == (2, 8)
    np.testing.assert_allclose(found.vectors, table.take(node), rtol=1e-5, atol=1e-5)
    assert found.predictions is not None
    np.testing.assert_allclose(found.predictions, model.predict(node), atol=1e-5)


@pytest.mark.parametrize("name", ["sage", "gcn", "gat", "pyg"])
def test_edges_among_new_nodes_count_as_in_a_graph_that_has_them(tmp_path: Path, name: str) -> None:
    run = make_run(tiny_store(tmp_path), tmp_path / "run", model=USER.get(name, {"name": name, "hidden": 8}))
    model, table, held = opened(run)
    # Node 3 twice, as a new one each time: 3' hears node 7 as stored, 3'' hears a new copy of it.
    _, known = in_edges(held, np.array([3]))
    _, of_seven = in_edges(held, np.array([7]))
    x = held.features("node").read()
    chained = NewNodes(
        x=x[[3, 7]],
        new=np.concatenate([np.zeros(len(known), np.int64), np.ones(len(of_seven), np.int64)]),
        known=np.concatenate([known, of_seven]),
        source=np.array([1]),
        target=np.array([0]),
    )
    plain = NewNodes(x=x[[3]], new=np.zeros(len(known) + 1, np.int64), known=np.append(known, 7))
    found, expected = model.infer(chained).vectors, model.infer(plain).vectors
    if name == "gcn":  # the copy's degree is its own in-edges, as the stored node's is
        assert len(of_seven) == len(in_edges(held, np.array([7]))[0])
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], table.take(np.array([7]))[0], rtol=1e-5, atol=1e-5)


def test_requests_put_together_get_what_each_would_get_alone(tmp_path: Path) -> None:
    model, _, held = opened(make_run(tiny_store(tmp_path), tmp_path / "run", model={"name": "gat", "hidden": 8}))
    parts = [as_new(held, np.array(node)) for node in ([1, 2], [3], [4, 5, 6])]
    both = model.infer(together(parts), predict=True).split([2, 1, 3], [True, False, True])
    for part, found in zip(parts, both, strict=True):
        np.testing.assert_allclose(found.vectors, model.infer(part).vectors, rtol=1e-6, atol=1e-6)
    assert [found.predictions is None for found in both] == [False, True, False]


def test_a_new_node_without_edges_has_a_vector_too(tmp_path: Path) -> None:
    model, _, _ = opened(make_run(tiny_store(tmp_path), tmp_path / "run"))
    assert np.isfinite(model.infer(NewNodes(x=np.ones((2, 8), np.float32))).vectors).all()


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        (NewNodes(x=np.ones((1, 7), np.float32)), r"shape \(1, 7\); the network takes \[number of nodes, 8\]"),
        (NewNodes(x=np.full((1, 8), np.nan, np.float32)), "new node 0 has nan as feature 0"),
        (NewNodes(x=np.ones((1, 8), np.float32), new=np.array([1]), known=np.array([0])), "'new' is 1; there are 1"),
        (NewNodes(x=np.ones((1, 8), np.float32), new=np.array([0]), known=np.array([200])), "'known' is 200"),
        (NewNodes(x=np.ones((1, 8), np.float32), source=np.array([-1]), target=np.array([0])), "'source' is -1"),
    ],
)
def test_nodes_that_the_network_cannot_take_are_refused(tmp_path: Path, nodes: NewNodes, says: str) -> None:
    model, _, _ = opened(make_run(tiny_store(tmp_path), tmp_path / "run"))
    with pytest.raises(InputError, match=says):
        model.infer(nodes)


def test_a_table_of_another_training_is_refused_by_name(tmp_path: Path) -> None:
    run = make_run(tiny_store(tmp_path), tmp_path / "run")
    _, table, _ = opened(run)
    train_nothing(run, seed=1, step=2)
    with pytest.raises(StaleArtefactError, match=r"was made from another checkpoint \(\w{12}\) than .*step-0+2"):
        open_inductive(run, table)


def test_layers_that_are_there_are_not_made_again(tmp_path: Path) -> None:
    run = make_run(tiny_store(tmp_path), tmp_path / "run")
    _, table, _ = opened(run)
    before = {path: path.stat().st_mtime_ns for path in RunFolder(run.out).inference.rglob("*")}
    open_inductive(run, table)
    assert {path: path.stat().st_mtime_ns for path in RunFolder(run.out).inference.rglob("*")} == before


def test_a_damaged_layer_is_named_when_it_is_needed(tmp_path: Path) -> None:
    run = make_run(tiny_store(tmp_path), tmp_path / "run")
    _, table, held = opened(run)
    file = chunk_file(layer_folder(RunFolder(run.out).inference, 1) / "h", 2)
    raw = bytearray(file.read_bytes())
    raw[40] ^= 1
    file.write_bytes(raw)
    with pytest.raises(CorruptError, match="chunk 0 is corrupt"):
        open_inductive(run, table).infer(as_new(held, np.array([3])))
