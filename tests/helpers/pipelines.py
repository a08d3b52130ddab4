"""Toy networks of layers, pipelines of toy processes, and what they are compared with."""

import multiprocessing as mp
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.fx.experimental.symbolic_shapes  # or each process would load it in its first backward pass
from helpers.topologies import random_topology
from torch import Tensor, nn
from torch._C._distributed_c10d import FileStore
from torch.nn import functional

from graphsys.core.config import RunConfig, TrainerConfig, parse_run
from graphsys.core.types import Topology
from graphsys.core.units import MIB
from graphsys.models.aggregate import sum_neighbors
from graphsys.models.base import LayerHop
from graphsys.models.layered import LayeredModel, MessageLayer, NodeRows
from graphsys.models.layered_parts import stage_parameters
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import homogeneous
from graphsys.trainers.objective import Objective, SingleLabel
from graphsys.trainers.pipeline.assemble import GraphData, assemble
from graphsys.trainers.pipeline.chunks import ChunkTable, count_mirrors
from graphsys.trainers.pipeline.clock import SlotTime
from graphsys.trainers.pipeline.links import Links
from graphsys.trainers.pipeline.partition import split_graph
from graphsys.trainers.pipeline.runtime import Runtime
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.stage_cut import equal_cut
from graphsys.trainers.pipeline.worker import train_worker

LIMIT_S = 120.0  # of any wait in a test
MOST = 3e38  # as a float32 can be, nearly


ALONE = Shape(stages=1, ways=1, slots=1)


class ToyLayer(MessageLayer):
    """Mean of neighbours and own row through one matrix, with what all layers share added."""

    def __init__(self, channels: int, *, dropout: float, linear: bool) -> None:
        super().__init__()
        self.message_channels = self.out_channels = channels
        self.lin = nn.Linear(channels, channels)
        self.dropout, self.linear = dropout, linear

    def prepare(self, rows: NodeRows) -> Tensor:
        return functional.dropout(rows.x, self.dropout, self.training)

    def messages(self, prepared: Tensor, rows: NodeRows) -> Tensor:
        return prepared / (rows.in_degree[:, None] + 1)

    def update(self, total: Tensor, prepared: Tensor, rows: NodeRows) -> Tensor:
        out = self.lin(total + 0.5 * prepared)
        if rows.shared is not None:
            out = out + 0.25 * rows.shared
        return out if self.linear else torch.tanh(out)


class ToyNet(LayeredModel):
    """Layers of one width between two linear maps; with ``shared``, the encoder's output goes to every layer."""

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        out_channels: int,
        num_layers: int,
        *,
        dropout: float = 0.0,
        shared: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.hidden_channels = hidden_channels
        self.shared_channels = hidden_channels if shared else 0
        self.encoder = nn.Linear(in_channels, hidden_channels)
        self.layers = nn.ModuleList(
            ToyLayer(hidden_channels, dropout=dropout, linear=linear) for _ in range(num_layers)
        )
        self.decoder = nn.Linear(hidden_channels, out_channels)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        encoded = torch.tanh(self.encoder(x))
        return encoded, encoded if self.shared_channels else None

    def decode(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(x)
        return out


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    """A small training, whole: graph, network and settings."""

    num_nodes: int = 60
    num_edges: int = 300
    num_layers: int = 4
    hidden: int = 8
    shared: bool = False
    linear: bool = False
    dropout: float = 0.0
    epochs: int = 3
    shape: Shape = ALONE
    trainer: dict[str, Any] = field(default_factory=dict)

    def on(self, *, stages: int = 1, ways: int = 1, slots: int = 1, **changes: Any) -> "Toy":
        """Return the same training spread differently."""
        return replace(self, shape=Shape(stages=stages, ways=ways, slots=slots), **changes)

    @property
    def topology(self) -> Topology:
        return random_topology(self.num_nodes, self.num_edges, seed=3)

    @property
    def data(self) -> GraphData:
        rng = np.random.default_rng(5)
        return GraphData(
            topology=self.topology,
            x=rng.standard_normal((self.num_nodes, 5), np.float32),
            y=np.arange(self.num_nodes) % 3,
            train=np.sort(rng.permutation(self.num_nodes)[: self.num_nodes // 2]),
        )

    @property
    def objective(self) -> Objective:
        return SingleLabel(3)

    @property
    def config(self) -> TrainerConfig:
        return TrainerConfig(**{"lr": 0.01, "epochs": self.epochs, "weight_decay": 5e-4, **self.trainer})

    def net(self) -> ToyNet:
        torch.manual_seed(1)
        return ToyNet(5, self.hidden, 3, self.num_layers, dropout=self.dropout, shared=self.shared, linear=self.linear)

    def table(self) -> ChunkTable:
        chunk = split_graph(self.topology, ways=self.shape.ways, slots=self.shape.slots, seed=0)
        return ChunkTable.of(chunk, ways=self.shape.ways, slots=self.shape.slots)

    def runtime(self, rank: int = 0, **changes: Any) -> Runtime:
        """Return one process of the training."""
        return assemble(
            changes.pop("net", None) or self.net(),
            changes.pop("data", None) or self.data,
            changes.pop("table", None) or self.table(),
            Links(self.shape, rank, LIMIT_S),
            cut=equal_cut(self.num_layers, self.shape.stages),
            objective=changes.pop("objective", None) or self.objective,
            config=self.config,
            **changes,
        )


def plain_forward(net: LayeredModel, topology: Topology, x: Tensor) -> Tensor:
    """Return the outputs of the whole graph, by plain autograd."""
    hop = LayerHop(indptr=torch.from_numpy(topology.indptr), indices=torch.from_numpy(topology.indices).long())
    degree = hop.indptr.diff().int()
    x, shared = net.encode(x)
    for index in range(net.num_layers):
        layer, rows = net.layer(index), NodeRows(x=x, shared=shared, in_degree=degree)
        prepared = layer.prepare(rows)
        x = layer.update(sum_neighbors(layer.messages(prepared, rows), hop)[0], prepared, rows)
    return net.decode(x)


def train_plainly(toy: Toy) -> tuple[list[float], dict[str, Tensor]]:
    """Return the losses and the weights of full-graph training in one process, without any of the pipeline's code."""
    net, data, config = toy.net(), toy.data, toy.config
    optimizer = torch.optim.Adam(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    train, losses = torch.from_numpy(data.train), []
    for _ in range(toy.epochs):
        optimizer.zero_grad()
        output = plain_forward(net, data.topology, torch.from_numpy(data.x))
        loss = functional.cross_entropy(output[train], torch.from_numpy(data.y)[train])
        torch.autograd.backward([loss])
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, {name: weight.detach() for name, weight in net.named_parameters()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What one process of a toy training ends with."""

    losses: list[float]  # of the whole graph
    weights: dict[str, Tensor]  # its own
    traffic: list[dict[str, int]]  # by epoch
    turns: list[list[SlotTime]]  # by epoch
    mirrors: int  # of all ways
    outputs: dict[int, Tensor]  # exact, after training, by dense id; of the last stage only


def train_rank(rank: int, toy: Toy) -> Trained:
    """Train one process of a toy; the others run beside it."""
    torch.set_num_threads(1)
    runtime = toy.runtime(rank)
    if toy.shape.slots > 1:
        runtime.run_exactly(into_snapshot=True)
    losses, traffic, turns = [], [], []
    for epoch in range(toy.epochs):
        result = runtime.run_epoch(epoch)
        losses.append(float(runtime.links.sum_over_all(torch.tensor([result.loss], dtype=torch.float64))))
        traffic.append(result.traffic.as_dict())
        turns.append(result.clock.slots)
    outputs: dict[int, Tensor] = {}
    node = toy.table().nodes_of(runtime.links.way)
    graph = runtime.stage.histories.graph
    runtime.run_exactly(lambda slot, rows: outputs.update(zip(node[graph.own(slot)].tolist(), rows, strict=True)))
    stage = runtime.stage
    own = stage_parameters(stage.model, 5, stage.first, stage.stop)
    return Trained(
        losses=losses,
        weights={name: weight.detach().clone() for name, weight in own.items()},
        traffic=traffic,
        turns=turns,
        mirrors=sum(count_mirrors(toy.topology, toy.table())),
        outputs=outputs,
    )


def train_toy(toy: Toy, folder: Path) -> list[Trained]:
    """Train a toy on as many processes as its shape has; return what each ends with, by rank."""
    if toy.shape.world_size == 1:
        return [train_rank(0, toy)]
    return on_processes(train_rank, toy.shape.world_size, folder, toy)


def all_weights(trained: Sequence[Trained]) -> dict[str, Tensor]:
    """Return the weights of all stages by name."""
    return {name: weight for part in trained for name, weight in part.weights.items()}


def all_outputs(trained: Sequence[Trained]) -> Tensor:
    """Return the exact outputs [N, C] by dense id."""
    found = {node: row for part in trained for node, row in part.outputs.items()}
    return torch.stack([found[node] for node in range(len(found))])


def assert_near(found: Tensor, expected: Tensor, *, rtol: float = 0.0, atol: float = 1e-5) -> None:
    """Compare entry by entry."""
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)


def on_processes(function: Callable[..., Any], world_size: int, folder: Path, *arguments: Any) -> list[Any]:
    """Return what ``function(rank, *arguments)`` returns on each of several processes joined by gloo.

    A process that fails, or is not done in time, fails the caller; none is left behind.
    """
    assert exit_codes(function, world_size, folder, *arguments) == [0] * world_size
    return [torch.load(folder / f"result-{rank}.pt", weights_only=False) for rank in range(world_size)]


def exit_codes(function: Callable[..., Any], world_size: int, folder: Path, *arguments: Any) -> list[int | None]:
    """Run as :func:`on_processes` does; return how each process ended, None for one that had to be killed."""
    (folder / "store").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    context = _warm_context()
    members = [
        context.Process(target=_member, args=(function, rank, world_size, folder, arguments), daemon=True)
        for rank in range(world_size)
    ]
    try:
        for member in members:
            member.start()
        for member in members:
            member.join(LIMIT_S)
        return [member.exitcode for member in members]
    finally:
        for member in members:
            if member.is_alive():
                member.kill()
                member.join(LIMIT_S)


def _warm_context() -> ForkServerContext:
    """Return a context whose processes start with torch and this module loaded."""
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["helpers.pipelines"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # Python 3.11's fork server looks nowhere else
    try:
        ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def _member(function: Callable[..., Any], rank: int, world_size: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = FileStore(str(folder / "store"), world_size)
    limit = timedelta(seconds=LIMIT_S)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size, timeout=limit)
    try:
        torch.save(function(rank, *arguments), folder / f"result-{rank}.pt")
    finally:
        dist.destroy_process_group()


def pipeline_store(
    folder: Path, *, num_nodes: int = 120, seed: int = 0, scale: float = 1.0, splits: Sequence[int] = (1, 2, 3)
) -> Path:
    """Import a graph of three communities whose features say a little of them; return the store's path.

    Args:
        scale: Of the features; none is beyond ``MOST``.
        splits: [3] that a third of the nodes each are in.
    """
    rng = np.random.default_rng(seed)
    y = np.arange(num_nodes) % 3
    ends = rng.integers(0, num_nodes, (2, 12 * num_nodes))
    kept = (y[ends[0]] == y[ends[1]]) | (rng.random(ends.shape[1]) < 0.15)
    x = rng.standard_normal((num_nodes, 6)) + np.eye(6)[y]
    source = homogeneous(
        ends[:, kept],
        num_nodes=num_nodes,
        x=np.clip(scale * x, -MOST, MOST).astype(np.float32),
        y=y,
        split=np.array(splits, np.uint8)[rng.permutation(num_nodes) % 3],
    )
    import_graph(source, folder / "communities.gs", ImportOptions(memory=64 * MIB, undirected=True))
    return folder / "communities.gs"


def pipeline_run(store: Path, out: Path, **sections: Any) -> RunConfig:
    """Return a small run on ``store``; ``sections`` are merged into it."""
    tree: dict[str, Any] = {
        "store": str(store),
        "out": str(out),
        "memory": "64MiB",
        "model": {"name": "gcnii", "hidden": 8, "num_layers": 4, "dropout": 0.3},
        "trainer": {"strategy": "pipeline", "epochs": 6, "threads": 1, "device": "cpu", "refresh": 2},
        "cluster": {"timeout": LIMIT_S, "dashboard": False},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section} if isinstance(section, dict) else section
    return parse_run(tree)


def run_worker(rank: int, run: RunConfig) -> None:
    """Train one process of a run."""
    train_worker(run, rank=rank, world_size=Shape.of(run).world_size)
