"""What the pipeline computes with several chunks, against a reference made of dense matrices and plain autograd."""

from itertools import permutations

import numpy as np
import pytest
import torch
from helpers.pipelines import Toy, ToyNet, assert_near, plain_forward
from helpers.topologies import topology_of
from torch import Tensor
from torch.nn import functional

from graphsys.core.types import NodeIds, Topology
from graphsys.models.layered import NodeRows
from graphsys.trainers.pipeline.assemble import GraphData
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.runtime import Runtime

Gradients = dict[str, Tensor]


def dense(topology: Topology) -> Tensor:
    """Return [N, N]: how many edges go from column to row."""
    matrix = torch.zeros(topology.num_nodes, topology.num_nodes)
    row = np.repeat(np.arange(topology.num_nodes), np.diff(topology.indptr))
    matrix.index_put_((torch.from_numpy(row), torch.from_numpy(topology.indices).long()), torch.tensor(1.0), True)
    return matrix


def historical(
    net: ToyNet, data: GraphData, turn: Tensor, snapshots: list[Tensor], *, cross: float
) -> tuple[float, Gradients, list[Tensor]]:
    """Return loss, gradients and messages of one epoch with histories.

    Args:
        turn: [N] when each node's chunk has its turn.
        snapshots: [N, M] stale messages of each layer.
        cross: What gradients count that cross between chunks.
    """
    edges = dense(data.topology)
    same, fresh = turn[:, None] == turn[None], turn[:, None] > turn[None]
    x, shared = net.encode(torch.from_numpy(data.x))
    published = []
    for index in range(net.num_layers):
        layer = net.layer(index)
        rows = NodeRows(x=x, shared=shared, in_degree=torch.from_numpy(np.diff(data.topology.indptr)).int())
        prepared = layer.prepare(rows)
        message = layer.messages(prepared, rows)
        published.append(message.detach().clone())
        scaled = cross * message + (1 - cross) * message.detach()  # the same values, gradients times ``cross``
        total = (edges * same) @ message + (edges * fresh) @ scaled + (edges * ~(same | fresh)) @ snapshots[index]
        x = layer.update(total, prepared, rows)
    train = torch.from_numpy(data.train)
    loss = functional.cross_entropy(net.decode(x)[train], torch.from_numpy(data.y)[train])
    torch.autograd.backward([loss])
    return float(loss.detach()), gradients(net), published


def gradients(net: ToyNet) -> Gradients:
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in net.named_parameters()}


def one_epoch(toy: Toy, chunk: NodeIds, net: ToyNet, data: GraphData, *, epoch: int = 0) -> tuple[float, Runtime]:
    """Run one epoch whose chunks have their turns in the order of their numbers, from an exact snapshot."""
    slots = int(chunk.max()) + 1
    table = ChunkTable.of(chunk, ways=1, slots=slots)
    runtime = toy.on(slots=slots).runtime(net=net, data=data, table=table)
    runtime.run_exactly(into_snapshot=True)
    return runtime.run_epoch(epoch).loss, runtime


def snapshot_messages(net: ToyNet, data: GraphData) -> list[Tensor]:
    """Return the messages of all layers when every one is fresh."""
    turn = torch.zeros(data.topology.num_nodes)
    none = [torch.zeros(data.topology.num_nodes, net.hidden_channels)] * net.num_layers
    return historical(net, data, turn, none, cross=1.0)[2]


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("shared", [False, True])
def test_an_epoch_has_the_loss_gradients_and_messages_of_the_reference(rescale: bool, shared: bool) -> None:
    toy = Toy(shared=shared, trainer={"shuffle_chunks": False, "rescale": rescale, "refresh": 2, "lr": 0.05})
    chunk, data = np.arange(toy.num_nodes) * 7 % 5, toy.data
    net, reference = toy.net(), toy.net()
    table = ChunkTable.of(chunk, ways=1, slots=5)
    runtime = toy.on(slots=5).runtime(net=net, data=data, table=table)
    runtime.run_exactly(into_snapshot=True)
    snapshots = snapshot_messages(reference, data)
    for epoch in range(4):  # a new snapshot after the second and the fourth
        reference.load_state_dict(net.state_dict())
        reference.zero_grad()
        cross = 2.0 if rescale else 1.0
        loss, expected, published = historical(reference, data, torch.from_numpy(chunk), snapshots, cross=cross)
        assert runtime.run_epoch(epoch).loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients(net).items():
            assert_near(gradient, expected[name], rtol=1e-4, atol=1e-6)
        snapshots = published if epoch % 2 else snapshots
        for index, history in runtime.stage.histories.layers.items():
            assert history.snapshot is not None
            assert_near(history.snapshot, snapshots[index][table.node], rtol=1e-4, atol=1e-6)
            assert torch.equal(history.live, history.snapshot)


def mean_gradients(toy: Toy, chunk: NodeIds, data: GraphData, net: ToyNet) -> Gradients:
    """Return the mean over all orders of the chunks."""
    found = []
    for order in permutations(range(int(chunk.max()) + 1)):
        fresh = ToyNet(data.x.shape[1], net.hidden_channels, 3, net.num_layers)
        fresh.load_state_dict(net.state_dict())
        one_epoch(toy, np.array(order)[chunk], fresh, data)
        found.append(gradients(fresh))
    return {name: torch.stack([part[name] for part in found]).mean(0) for name in found[0]}


def exact_gradients(data: GraphData, net: ToyNet) -> Gradients:
    net.zero_grad()
    train = torch.from_numpy(data.train)
    output = plain_forward(net, data.topology, torch.from_numpy(data.x))
    torch.autograd.backward([functional.cross_entropy(output[train], torch.from_numpy(data.y)[train])])
    return gradients(net)


STILL = {"shuffle_chunks": False, "lr": 1e-12, "weight_decay": 0.0}


def test_over_all_orders_the_gradient_of_one_aggregation_is_that_of_no_history() -> None:
    toy = Toy(num_layers=1, trainer=STILL)
    data, net = toy.data, toy.net()
    mean = mean_gradients(toy, np.arange(toy.num_nodes) % 4, data, net)
    for name, gradient in exact_gradients(data, net).items():
        assert_near(mean[name], gradient, rtol=1e-4, atol=1e-6)


def test_without_rescaling_it_has_half_of_what_crosses_between_chunks() -> None:
    toy = Toy(num_layers=1, trainer={**STILL, "rescale": False})
    data, net = toy.data, toy.net()
    chunk = np.arange(toy.num_nodes) % 4
    mean = mean_gradients(toy, chunk, data, net)
    whole, turn = snapshot_messages(net, data), torch.from_numpy(chunk)
    exact = exact_gradients(data, net)
    assert not torch.allclose(mean["encoder.weight"], exact["encoder.weight"], rtol=1e-3)
    inner = within_chunks(net, data, turn, whole)
    for name in ("encoder.weight", "encoder.bias"):
        assert_near(mean[name], (inner[name] + exact[name]) / 2, rtol=1e-4, atol=1e-6)


def within_chunks(net: ToyNet, data: GraphData, turn: Tensor, whole: list[Tensor]) -> Gradients:
    """Return the gradients that cross between no chunks, at the values of fresh messages."""
    net.zero_grad()
    return historical(net, data, turn, whole, cross=0.0)[1]


def path_data(ends: list[tuple[int, int]], num_nodes: int, train: int) -> GraphData:
    """Return a graph whose node i has feature i alone, so that a column of the encoder's weights belongs to a node."""
    src, dst = zip(*ends, strict=True)
    return GraphData(
        topology=topology_of(src, dst, num_nodes),
        x=np.eye(num_nodes, dtype=np.float32),
        y=np.zeros(num_nodes, np.int64),
        train=np.array([train]),
    )


def ratios(data: GraphData, num_layers: int) -> list[float]:
    """Return, node by node, the mean over all orders over the exact gradient; each node is a chunk of its own."""
    num_nodes = data.topology.num_nodes
    torch.manual_seed(0)
    net = ToyNet(num_nodes, 4, 3, num_layers)
    toy = Toy(num_nodes=num_nodes, num_layers=num_layers, hidden=4, trainer=STILL)
    mean = mean_gradients(toy, np.arange(num_nodes), data, net)["encoder.weight"]
    exact = exact_gradients(data, net)["encoder.weight"]
    return [float((mean[:, node] @ exact[:, node]) / exact[:, node].square().sum()) for node in range(num_nodes)]


def test_a_path_that_crosses_k_times_counts_two_to_the_k_over_k_plus_one_factorial() -> None:
    # Messages go 0 -> 1 -> 2 -> 3 and node 3 is trained. A path is seen when its chunks stand in order, which k + 1
    # different chunks do in one of (k + 1)! orders, and counts 2 per crossing: unbiased for k = 1 only.
    data = path_data([(0, 1), (1, 2), (2, 3)], 4, train=3)
    assert ratios(data, num_layers=3) == pytest.approx([8 / 24, 4 / 6, 1.0, 1.0], rel=1e-4)


def test_a_path_that_leaves_a_chunk_and_comes_back_is_never_seen() -> None:
    # The exact gradient of node 0 also has the path 0 -> 1 -> 0; the mean over both orders is that without it.
    data = path_data([(0, 1), (1, 0)], 2, train=0)
    torch.manual_seed(0)
    net = ToyNet(2, 4, 3, 2)
    toy = Toy(num_nodes=2, num_layers=2, hidden=4, trainer=STILL)
    mean = mean_gradients(toy, np.arange(2), data, net)["encoder.weight"]
    own_only = within_chunks(net, data, torch.arange(2), snapshot_messages(net, data))["encoder.weight"]
    net.zero_grad()
    assert_near(mean[:, 0], own_only[:, 0], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(mean[:, 0], exact_gradients(data, net)["encoder.weight"][:, 0], rtol=1e-3)


def test_without_shuffling_what_comes_before_never_learns_from_what_it_sends_against_the_order() -> None:
    toy = Toy(num_nodes=2, num_layers=1, hidden=4, trainer=STILL)
    for source, seen in ((0, True), (1, False)):
        data = path_data([(source, 1 - source)], 2, train=1 - source)
        net = ToyNet(2, 4, 3, 1)
        one_epoch(toy, np.arange(2), net, data)
        assert bool(gradients(net)["encoder.weight"][:, source].any()) == seen
