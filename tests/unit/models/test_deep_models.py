"""Deep networks against their formulas over dense matrices, and against the layers of PyG."""

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch_geometric.nn import GCN2Conv, GENConv

from graphsys.core.config import ModelConfig
from graphsys.core.errors import ConfigError
from graphsys.models.layered import LayeredModel, NodeRows
from graphsys.models.whole_graph import forward_whole
from graphsys.trainers.model_factory import build_layered_model

NODES, IN, HIDDEN, OUT, LAYERS = 40, 7, 8, 5, 3

Weights = Mapping[str, Tensor]


class DirectedGraph:
    """Edges both ways and one way, a few of them twice, without self-loops; node 0 has no in-edge."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(2)
        self.adjacency = torch.randint(0, 12, (NODES, NODES), generator=generator).sub(9).clamp(min=0)  # [to, from]
        self.adjacency.fill_diagonal_(0)
        self.adjacency[0] = 0
        self.indptr = functional.pad(self.adjacency.sum(dim=1).cumsum(0), (1, 0))
        _, source = self.adjacency.nonzero(as_tuple=True)
        counts = self.adjacency[self.adjacency > 0]
        self.indices = source.repeat_interleave(counts).to(torch.int32)
        self.x = torch.randn(NODES, IN, generator=generator)

    @property
    def edge_index(self) -> Tensor:
        destination = torch.arange(NODES).repeat_interleave(self.indptr.diff())
        return torch.stack([self.indices.long(), destination])


@pytest.fixture
def graph() -> DirectedGraph:
    return DirectedGraph()


def build(name: str, **model: object) -> LayeredModel:
    config = ModelConfig.model_validate({"name": name, "hidden": HIDDEN, "num_layers": LAYERS, "dropout": 0.0} | model)
    return build_layered_model(config, IN, OUT, seed=4)


def by_degree(adjacency: Tensor) -> Tensor:
    """Return P of a graph convolution, dense."""
    scale = (adjacency.sum(dim=1).float() + 1).rsqrt()
    return scale[:, None] * (adjacency + torch.eye(NODES)) * scale


def mean(adjacency: Tensor) -> Tensor:
    return adjacency / adjacency.sum(dim=1, keepdim=True).clamp(min=1)


def norm(x: Tensor, w: Weights, part: str) -> Tensor:
    return functional.layer_norm(x, (HIDDEN,), w[f"{part}.weight"], w[f"{part}.bias"])


def linear(x: Tensor, w: Weights, part: str) -> Tensor:
    return functional.linear(x, w[f"{part}.weight"], w.get(f"{part}.bias"))


def deep_gcn(x: Tensor, first: Tensor, w: Weights, index: int, adjacency: Tensor) -> Tensor:
    del first
    layer = f"layers.{index}"
    return x + linear(by_degree(adjacency) @ norm(x, w, f"{layer}.norm"), w, f"{layer}.lin").relu()


def deep_sage(x: Tensor, first: Tensor, w: Weights, index: int, adjacency: Tensor) -> Tensor:
    del first
    layer = f"layers.{index}"
    normed = norm(x, w, f"{layer}.norm")
    return x + (linear(mean(adjacency) @ normed, w, f"{layer}.lin_l") + linear(normed, w, f"{layer}.lin_r")).relu()


def gcnii(x: Tensor, first: Tensor, w: Weights, index: int, adjacency: Tensor) -> Tensor:
    support = 0.9 * by_degree(adjacency) @ x + 0.1 * first
    beta = math.log(0.5 / (index + 1) + 1)
    return ((1 - beta) * support + beta * support @ w[f"layers.{index}.lin.weight"].t()).relu()


def resgcn(x: Tensor, first: Tensor, w: Weights, index: int, adjacency: Tensor) -> Tensor:
    del first
    layer = f"layers.{index}"
    active = norm(x, w, f"{layer}.norm").relu()
    return x + linear(active + mean(adjacency) @ active, w, f"{layer}.lin")


Layer = Callable[[Tensor, Tensor, Weights, int, Tensor], Tensor]
LAYER: dict[str, Layer] = {"deep_gcn": deep_gcn, "deep_sage": deep_sage, "gcnii": gcnii, "resgcn": resgcn}


def dense(name: str, w: Weights, x: Tensor, adjacency: Tensor) -> Tensor:
    """Return the network's outputs by matrix products alone."""
    first = x = linear(x, w, "encoder.1").relu()
    for index in range(LAYERS):
        x = LAYER[name](x, first, w, index, adjacency)
    if name == "gcnii":
        return linear(x, w, "decoder.1")
    return linear(norm(x, w, "decoder.0").relu(), w, "decoder.3")


def moved(model: LayeredModel) -> LayeredModel:
    """Move the parameters that start at zeros and ones, so that every one of them shows."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.mark.parametrize("name", LAYER)
def test_a_network_over_the_whole_graph_is_its_formula_over_dense_matrices(name: str, graph: DirectedGraph) -> None:
    model = moved(build(name))
    expected = dense(name, dict(model.named_parameters()), graph.x, graph.adjacency)
    assert torch.allclose(forward_whole(model, graph.x, graph.indptr, graph.indices), expected, atol=1e-5)


@pytest.mark.parametrize("name", LAYER)
def test_gradients_of_weights_and_features_are_those_of_dense_matrices(name: str, graph: DirectedGraph) -> None:
    model, x = moved(build(name)), graph.x.requires_grad_()
    parameters = dict(model.named_parameters())
    wanted = [x, *parameters.values()]
    target = torch.randn(NODES, OUT, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad((forward_whole(model, x, graph.indptr, graph.indices) * target).sum(), wanted)
    theirs = torch.autograd.grad((dense(name, parameters, x, graph.adjacency) * target).sum(), wanted)
    for one, other in zip(ours, theirs, strict=True):
        assert bool(one.any())
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-4)


def test_resgcn_can_sum_its_neighbours(graph: DirectedGraph) -> None:
    model = moved(build("resgcn", num_layers=1, aggr="sum"))
    w = dict(model.named_parameters())
    x = linear(graph.x, w, "encoder.1").relu()
    active = norm(x, w, "layers.0.norm").relu()
    x = x + linear(active + graph.adjacency.float() @ active, w, "layers.0.lin")
    expected = linear(norm(x, w, "decoder.0").relu(), w, "decoder.3")
    assert torch.allclose(forward_whole(model, graph.x, graph.indptr, graph.indices), expected, atol=1e-4)


def test_gcnii_is_a_stack_of_pygs_layers_with_the_same_weights(graph: DirectedGraph) -> None:
    model = build("gcnii", num_layers=32, alpha=0.2, theta=1.5)
    first = x = model.encode(graph.x)[0]
    for index in range(32):
        conv = GCN2Conv(HIDDEN, alpha=0.2, theta=1.5, layer=index + 1)
        conv.weight1.data = model.get_parameter(f"layers.{index}.lin.weight").t()
        x = conv(x, first, graph.edge_index).relu()
    assert torch.allclose(forward_whole(model, graph.x, graph.indptr, graph.indices), model.decode(x), atol=1e-5)


@pytest.mark.parametrize("aggr", ["mean", "sum"])
def test_resgcn_convolves_as_pygs_generalised_convolution(aggr: str, graph: DirectedGraph) -> None:
    model = moved(build("resgcn", aggr=aggr))
    x = model.encode(graph.x)[0]
    for index in range(LAYERS):
        conv = GENConv(HIDDEN, HIDDEN, aggr=aggr, num_layers=1, bias=True)
        conv.load_state_dict(
            {f"mlp.0.{key}": model.get_parameter(f"layers.{index}.lin.{key}") for key in ("weight", "bias")}
        )
        normed = norm(x, dict(model.named_parameters()), f"layers.{index}.norm")
        x = x + conv(normed.relu(), graph.edge_index)
    assert torch.allclose(forward_whole(model, graph.x, graph.indptr, graph.indices), model.decode(x), atol=1e-4)


@pytest.mark.parametrize("name", LAYER)
def test_rows_come_out_the_same_in_any_parts(name: str, graph: DirectedGraph) -> None:
    model = moved(build(name))
    parts = torch.tensor_split(torch.randperm(NODES, generator=torch.Generator().manual_seed(3)), [1, 26])
    degree = graph.indptr.diff().int()
    whole, shared = model.encode(graph.x)
    rows = NodeRows(x=whole, shared=shared, in_degree=degree)
    layer, total = model.layer(1), torch.randn(NODES, HIDDEN)
    prepared = layer.prepare(rows)
    messages, out = layer.messages(prepared, rows), layer.update(total, prepared, rows)
    for part in parts:
        x, part_shared = model.encode(graph.x[part])
        assert torch.allclose(x, whole[part], atol=1e-5)
        some = NodeRows(x=x, shared=part_shared, in_degree=degree[part])
        own = layer.prepare(some)
        assert torch.allclose(layer.messages(own, some), messages[part], atol=1e-5)
        assert torch.allclose(layer.update(total[part], own, some), out[part], atol=1e-5)
        assert torch.allclose(model.decode(x), model.decode(whole)[part], atol=1e-5)


@pytest.mark.parametrize("name", LAYER)
def test_declared_widths_are_those_of_the_rows(name: str, graph: DirectedGraph) -> None:
    model = build(name)
    x, shared = model.encode(graph.x)
    assert x.shape[1] == model.hidden_channels == HIDDEN
    assert (0 if shared is None else shared.shape[1]) == model.shared_channels == (HIDDEN if name == "gcnii" else 0)
    assert {(model.layer(i).message_channels, model.layer(i).out_channels) for i in range(LAYERS)} == {(HIDDEN, HIDDEN)}


@pytest.mark.parametrize("name", LAYER)
def test_dropout_follows_torchs_generator_and_stops_in_evaluation(name: str, graph: DirectedGraph) -> None:
    def outputs(model: LayeredModel, seed: int) -> Tensor:
        torch.manual_seed(seed)
        return forward_whole(model, graph.x, graph.indptr, graph.indices)

    model = build(name, dropout=0.5)
    assert torch.equal(outputs(model, 1), outputs(model, 1))
    assert not torch.equal(outputs(model, 1), outputs(model, 2))
    assert torch.equal(outputs(model.eval(), 1), outputs(build(name), 2))


@pytest.mark.parametrize("name", LAYER)
def test_sixty_four_layers_answer_with_finite_numbers_that_differ_by_node(name: str, graph: DirectedGraph) -> None:
    out = forward_whole(build(name, num_layers=64), graph.x, graph.indptr, graph.indices)
    assert bool(out.isfinite().all())
    assert bool((out.std(dim=0) > 1e-4).all())


def test_features_of_another_number_of_nodes_are_refused(graph: DirectedGraph) -> None:
    with pytest.raises(ConfigError, match="features have 39 rows and the graph 40 nodes"):
        forward_whole(build("gcnii"), graph.x[1:], graph.indptr, graph.indices)
