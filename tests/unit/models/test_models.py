from collections.abc import Callable

import pytest
import torch
from helpers.training import MemoryGraph, all_nodes, memory_graph, sampled, whole_hop
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

from graphsys.core.errors import ConfigError
from graphsys.models.base import LayerHop, LayerwiseModel
from graphsys.models.gat import GAT
from graphsys.models.gcn import GCN, normalized_edges
from graphsys.models.gin import GIN
from graphsys.models.sage import GraphSAGE

Plain = Callable[[nn.Module, int, Tensor, Tensor], Tensor]


def _plain_gcn(ours: nn.Module, index: int, x: Tensor, edge_index: Tensor) -> Tensor:
    # PyG's own normalisation, on the weights of our layer.
    assert isinstance(ours, GCNConv)
    conv = GCNConv(ours.in_channels, ours.out_channels)
    conv.load_state_dict(ours.state_dict())
    out: Tensor = conv(x, edge_index)
    return out if index == 2 else functional.relu(out)


def _plain(kind: type[nn.Module], activate: Callable[[Tensor], Tensor]) -> Plain:
    def layer(ours: nn.Module, index: int, x: Tensor, edge_index: Tensor) -> Tensor:
        assert isinstance(ours, kind)
        out: Tensor = ours(x, edge_index)
        return out if index == 2 else activate(out)

    return layer


CASES: dict[str, tuple[type[GraphSAGE] | type[GCN] | type[GAT] | type[GIN], Plain]] = {
    "sage": (GraphSAGE, _plain(SAGEConv, functional.relu)),
    "gcn": (GCN, _plain_gcn),
    "gat": (GAT, _plain(GATConv, functional.elu)),
    "gin": (GIN, _plain(GINConv, functional.relu)),
}


@pytest.fixture
def graph() -> MemoryGraph:
    return memory_graph()


def build(name: str, *, dropout: float = 0.5) -> LayerwiseModel:
    torch.manual_seed(3)
    return CASES[name][0](7, 8, 5, 3, dropout=dropout).eval()


def chained(model: LayerwiseModel, x: Tensor, hop: LayerHop) -> Tensor:
    for index in range(model.num_layers):
        x = model.forward_layer(index, x, hop)
    return x


@pytest.mark.parametrize("name", CASES)
def test_layers_chained_over_the_graph_give_what_plain_pyg_layers_give(name: str, graph: MemoryGraph) -> None:
    model, x = build(name), graph.x
    for index, conv in enumerate(model.get_submodule("convs").children()):
        x = CASES[name][1](conv, index, x, graph.edge_index)
    assert torch.allclose(chained(model, graph.x, whole_hop(graph)), x, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_with_all_neighbours_gives_what_the_chained_layers_give(name: str, graph: MemoryGraph) -> None:
    model = build(name)
    exact = chained(model, graph.x, whole_hop(graph))
    seeds = [5, 0, 59, 31]
    assert torch.allclose(model(sampled(graph, seeds, [-1, -1, -1])), exact[seeds], atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_all_nodes_as_seeds_give_every_row_in_seed_order(name: str, graph: MemoryGraph) -> None:
    model = build(name)
    exact = chained(model, graph.x, whole_hop(graph))
    assert torch.allclose(model(sampled(graph, all_nodes(graph).tolist(), [-1, -1, -1])), exact, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_gets_a_gradient_from_a_sampled_batch(name: str, graph: MemoryGraph) -> None:
    model = build(name).train()
    model(sampled(graph, [0, 1, 2, 3, 4], [3, 3, 3])).square().sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


def test_each_layer_runs_on_the_nodes_that_the_seeds_still_need(graph: MemoryGraph) -> None:
    model = build("sage")
    batch = sampled(graph, [0, 1], [2, 2, 2])
    rows: list[int] = []
    for conv in model.get_submodule("convs").children():
        conv.register_forward_hook(lambda _conv, _inputs, out: rows.append(out.shape[0]))
    model(batch)
    nodes = batch.num_sampled_nodes
    assert rows == [sum(nodes[:3]), sum(nodes[:2]), nodes[0]]


def test_a_batch_of_too_few_hops_is_refused(graph: MemoryGraph) -> None:
    with pytest.raises(ConfigError, match="3 layers got a batch of 2 hops"):
        build("sage")(sampled(graph, [0], [2, 2]))


def test_gcn_weights_of_sampled_edges_average_to_those_of_all_edges(graph: MemoryGraph) -> None:
    # Node 0 has d in-edges; each sample of s of them scales their weights by d / s.
    degree = int(graph.topology.indptr[1])
    x, total, draws = torch.ones(60, 1), 0.0, 2000
    assert degree > 6
    edges, weight = normalized_edges(whole_hop(graph))
    exact = float((weight * x[edges[0], 0])[edges[1] == 0].sum())
    for batch_id in range(draws):
        batch = sampled(graph, [0], [3], batch_id=batch_id)
        hop = LayerHop(edge_index=batch.edge_index, num_dst=1, in_degree=batch.in_degree)
        total += float(normalized_edges(hop)[1].sum())
    assert total / draws == pytest.approx(exact, rel=0.02)


def test_gcn_refuses_a_batch_without_degrees(graph: MemoryGraph) -> None:
    hop = LayerHop(edge_index=graph.edge_index, num_dst=60)
    with pytest.raises(ConfigError, match="with_degree"):
        build("gcn").forward_layer(0, graph.x, hop)


def test_only_gcn_asks_for_degrees() -> None:
    assert [name for name in CASES if build(name).needs_degree] == ["gcn"]


def test_gat_heads_that_do_not_divide_the_width_are_refused_with_a_width_that_works() -> None:
    with pytest.raises(ConfigError, match=r"set model\.hidden to 12"):
        GAT(7, 10, 5, 2, heads=4)


def test_one_layer_models_map_features_to_outputs(graph: MemoryGraph) -> None:
    for kind in (GraphSAGE, GCN, GAT, GIN):
        assert kind(7, 8, 5, 1).eval()(sampled(graph, [1, 2], [-1])).shape == (2, 5)


@pytest.mark.parametrize("name", CASES)
def test_nodes_without_neighbours_get_finite_outputs(name: str, graph: MemoryGraph) -> None:
    lonely = [node for node in range(60) if graph.topology.indptr[node] == graph.topology.indptr[node + 1]]
    out = build(name)(sampled(graph, lonely, [-1, -1, -1]))
    assert lonely
    assert bool(out.isfinite().all())
