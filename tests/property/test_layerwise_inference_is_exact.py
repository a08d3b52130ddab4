"""Layer-wise inference, in chunks of any size, gives what the network gives on the whole graph at once."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from helpers.graphs import MEMORY, tiny_graph
from helpers.training import topology_hop
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import GCNConv, SAGEConv

from graphsys.core.errors import MemoryBudgetError
from graphsys.models.base import LayerHop
from graphsys.models.gat import GAT
from graphsys.models.gcn import GCN
from graphsys.models.gin import GIN
from graphsys.models.sage import GraphSAGE
from graphsys.models.stack import ConvStack
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import homogeneous
from graphsys.storage.store import Store
from graphsys.trainers.chunks import ChunkLimits, EdgeReader, LayerCost
from graphsys.trainers.layerwise import LayerTally, run_layer

NUM_NODES = 60
DIM = 8
EVERYTHING = 1 << 40
LIMITS = st.builds(
    ChunkLimits,
    memory=st.just(1 << 22),
    max_rows=st.integers(1, NUM_NODES + 5),
    max_edges=st.integers(1, 400),
    step_bytes=st.integers(1, 1 << 16),
    max_degree=st.integers(1, 60),
    hub_degree=st.just(EVERYTHING),
)


@dataclass(frozen=True, kw_only=True)
class Graph:
    store: Store
    x: Tensor
    hop: LayerHop

    @property
    def edges(self) -> EdgeReader:
        return EdgeReader(self.store, self.store.edge_type_within("node"))


def make_graph(folder: Path, self_loops: Literal["keep", "drop"]) -> Graph:
    tiny = tiny_graph(num_nodes=NUM_NODES, num_edges=400)
    x = np.random.default_rng(0).standard_normal((NUM_NODES, DIM)).astype(np.float32)
    source = homogeneous(tiny.edge_index, num_nodes=NUM_NODES, x=x)
    import_graph(source, folder / "graph.gs", ImportOptions(memory=MEMORY, self_loops=self_loops))
    store = Store.open(folder / "graph.gs")
    topology = store.topology(store.edge_type_within("node"), in_memory=True)
    return Graph(store=store, x=torch.from_numpy(x), hop=topology_hop(topology))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    return make_graph(tmp_path_factory.mktemp("graph"), "keep")


def model(name: str) -> ConvStack:
    torch.manual_seed(0)
    made: ConvStack
    if name == "gat":
        made = GAT(DIM, 6, 3, 2, heads=2)
    else:
        kinds: dict[str, type[GraphSAGE] | type[GCN] | type[GIN]] = {"sage": GraphSAGE, "gcn": GCN, "gin": GIN}
        made = kinds[name](DIM, 6, 3, 2)
    made.eval()
    return made


def chunked(graph: Graph, network: ConvStack, limits: ChunkLimits, folder: Path) -> Tensor:
    below = graph.store.features("node")
    for index in range(network.num_layers):
        cost = LayerCost.of(below.shape[1], 8)
        blocks = run_layer(
            network,
            index,
            below,
            graph.edges,
            limits=limits,
            cost=cost,
            device=torch.device("cpu"),
            tally=LayerTally(rows=ReadCount()),
        )
        place = folder / f"layer-{index}"
        below = FlatArray(place, write_array(place, np.concatenate(list(blocks))))
    return torch.from_numpy(below.read().copy())


@pytest.mark.parametrize("name", ["sage", "gcn", "gat", "gin"])
@given(limits=LIMITS)
@settings(deadline=None, max_examples=12)
def test_any_chunk_size_gives_the_whole_graph_forward(graph: Graph, name: str, limits: ChunkLimits) -> None:
    network = model(name)
    with torch.no_grad():
        expected = graph.x
        for index in range(network.num_layers):
            expected = network.forward_layer(index, expected, graph.hop)
    with tempfile.TemporaryDirectory() as folder:
        found = chunked(graph, network, limits, Path(folder))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_it_equals_the_pyg_network_on_the_whole_graph(graph: Graph, tmp_path: Path) -> None:
    network = model("sage")
    found = chunked(graph, network, ChunkLimits.of(1 << 18, LayerCost.of(DIM, 8)), tmp_path)
    with torch.no_grad():
        first, second = SAGEConv(DIM, 6), SAGEConv(6, 3)
        for conv, own in zip((first, second), network.convs, strict=True):
            conv.load_state_dict(own.state_dict())
        expected = second(torch.relu(first(graph.x, graph.hop.edge_index)), graph.hop.edge_index)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_gcn_equals_pyg_with_its_own_normalisation(tmp_path: Path) -> None:
    graph = make_graph(tmp_path, "drop")  # PyG treats a graph's own loops in another way
    network = model("gcn")
    found = chunked(graph, network, ChunkLimits.of(1 << 18, LayerCost.of(DIM, 8)), tmp_path)
    convs = [GCNConv(DIM, 6), GCNConv(6, 3)]
    for conv, own in zip(convs, network.convs, strict=True):
        conv.load_state_dict(own.state_dict())
    with torch.no_grad():
        expected = convs[1](torch.relu(convs[0](graph.x, graph.hop.edge_index)), graph.hop.edge_index)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_same_limits_give_the_same_bytes(graph: Graph, tmp_path: Path) -> None:
    limits = ChunkLimits.of(1 << 17, LayerCost.of(DIM, 8))
    first, second = (chunked(graph, model("gat"), limits, tmp_path / name) for name in ("a", "b"))
    assert first.numpy().tobytes() == second.numpy().tobytes()


def test_a_node_with_too_many_edges_is_refused_with_the_memory_that_would_do(graph: Graph, tmp_path: Path) -> None:
    cost = LayerCost.of(DIM, 8)
    with pytest.raises(MemoryBudgetError, match=r"in-edges of node \d+ .* set memory to at least \d+MiB"):
        chunked(graph, model("sage"), ChunkLimits.of(8 << 10, cost), tmp_path)
