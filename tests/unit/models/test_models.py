from collections.abc import Callable

import pytest
import torch
from helpers.training import MemoryGraph, all_nodes, memory_graph, sampled, whole_hop
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATConv, GCNConv, GINConv, SAGEConv

from graphsys.core.errors import ConfigError
from graphsys.models.base import LayerHop, LayerwiseModel, StreamedModel, prefix_hop
from graphsys.models.gat import GAT
from graphsys.models.gcn import GCN
from graphsys.models.gin import GIN
from graphsys.models.sage import GraphSAGE

IN, HIDDEN, OUT = 7, 8, 5


def _gin(before: int, after: int, last: bool) -> nn.Module:
    del last
    layers = (nn.Linear(before, HIDDEN), nn.LayerNorm(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, after))
    conv: nn.Module = GINConv(nn.Sequential(*layers), train_eps=True)
    return conv


def _gat(before: int, after: int, last: bool) -> nn.Module:
    conv: nn.Module = GATConv(before, after, heads=1) if last else GATConv(before, after // 4, heads=4)
    return conv


# Our network; PyG's layer of the same widths; the activation between layers.
Case = tuple[
    type[GraphSAGE] | type[GCN] | type[GAT] | type[GIN],
    Callable[[int, int, bool], nn.Module],
    Callable[[Tensor], Tensor],
]
CASES: dict[str, Case] = {
    "sage": (GraphSAGE, lambda before, after, _: SAGEConv(before, after), functional.relu),
    "gcn": (GCN, lambda before, after, _: GCNConv(before, after), functional.relu),
    "gat": (GAT, _gat, functional.elu),
    "gin": (GIN, _gin, functional.relu),
}
STREAMED = ["sage", "gcn", "gin"]


@pytest.fixture
def graph() -> MemoryGraph:
    return memory_graph()


def build(name: str, *, dropout: float = 0.5) -> LayerwiseModel:
    torch.manual_seed(3)
    return CASES[name][0](IN, HIDDEN, OUT, 3, dropout=dropout).eval()


def chained(model: LayerwiseModel, x: Tensor, hop: LayerHop) -> Tensor:
    for index in range(model.num_layers):
        x = model.forward_layer(index, x, hop)
    return x


def pyg_layers(name: str, model: LayerwiseModel) -> list[nn.Module]:
    """Return PyG's layers with the weights of ours: the parameters have the same names."""
    pairs = [(IN, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, OUT)]
    layers = [CASES[name][1](*pair, index == 2) for index, pair in enumerate(pairs)]
    for layer, own in zip(layers, model.get_submodule("convs").children(), strict=True):
        layer.load_state_dict(own.state_dict())
    return layers


@pytest.mark.parametrize("name", CASES)
def test_layers_chained_over_the_graph_give_what_pyg_layers_give(name: str, graph: MemoryGraph) -> None:
    model, x = build(name), graph.x
    for index, layer in enumerate(pyg_layers(name, model)):
        x = layer(x, graph.edge_index)
        x = x if index == 2 else CASES[name][2](x)
    assert torch.allclose(chained(model, graph.x, whole_hop(graph)), x, atol=1e-5)


@pytest.mark.parametrize("name", STREAMED)
def test_messages_summed_and_updated_give_the_layer(name: str, graph: MemoryGraph) -> None:
    model, hop, x = build(name), whole_hop(graph), graph.x
    assert isinstance(model, StreamedModel)
    for index in range(model.num_layers):
        message = model.messages(index, x, hop.in_degree)
        assert message.shape == (60, model.message_channels(index))
        total = torch.zeros_like(message).index_add(0, hop.edge_index[1], message[hop.edge_index[0]])
        out = model.update(index, total, hop.indptr.diff(), x, hop.in_degree)
        x = model.forward_layer(index, x, hop)
        assert torch.allclose(out, x, atol=1e-5)


@pytest.mark.parametrize("name", STREAMED)
def test_a_message_is_as_narrow_as_the_narrower_end_of_its_layer(name: str) -> None:
    model = build(name)
    assert isinstance(model, StreamedModel)
    last = HIDDEN if name == "gin" else OUT  # the perceptron's first map leads to the hidden width
    assert [model.message_channels(index) for index in range(3)] == [IN, HIDDEN, last]


@pytest.mark.parametrize("name", CASES)
def test_initial_weights_have_the_spread_of_pyg(name: str) -> None:
    torch.manual_seed(0)
    ours = CASES[name][0](IN, HIDDEN, OUT, 3).get_submodule("convs.0").state_dict()
    theirs = [CASES[name][1](IN, HIDDEN, False).state_dict() for _ in range(50)]
    for key, value in ours.items():
        bounds = torch.stack([draw[key].abs().max() for draw in theirs])
        assert 0.7 * bounds.min() <= value.abs().max() <= bounds.max() * 1.01


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


def test_sampled_gcn_layers_average_to_the_layer_over_all_edges(graph: MemoryGraph) -> None:
    # Node 0 has d in-edges; each sample of s of them scales their weights by d / s.
    assert int(graph.topology.indptr[1]) > 6
    model, draws = GCN(1, 1, 1, 1), 2000
    nn.init.ones_(model.conv(0).get_parameter("lin.weight"))
    with torch.no_grad():
        exact = float(model.forward_layer(0, torch.ones(60, 1), whole_hop(graph))[0])
        batches = (sampled(graph, [0], [3], batch_id=batch_id) for batch_id in range(draws))
        total = sum(float(model.forward_layer(0, torch.ones_like(b.x[:, :1]), prefix_hop(b, 1))) for b in batches)
    assert total / draws == pytest.approx(exact, rel=0.02)


def test_gcn_refuses_a_batch_without_degrees(graph: MemoryGraph) -> None:
    hop = whole_hop(graph)
    with pytest.raises(ConfigError, match="with_degree"):
        build("gcn").forward_layer(0, graph.x, LayerHop(indptr=hop.indptr, indices=hop.indices))


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
