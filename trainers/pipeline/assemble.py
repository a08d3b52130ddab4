"""Puts one process of a pipeline together: its layers, its part of the graph, its weights and its buffers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphsys.core.config import TrainerConfig
from graphsys.core.types import Array, NodeIds, Topology
from graphsys.models.layered import LayeredModel
from graphsys.models.layered_parts import stage_parameters
from graphsys.trainers.objective import Objective
from graphsys.trainers.optimizer import new_optimizer
from graphsys.trainers.pipeline.chunks import ChunkTable, WayGraph, way_graph
from graphsys.trainers.pipeline.history import Allocate, Histories
from graphsys.trainers.pipeline.links import Links
from graphsys.trainers.pipeline.runtime import Runtime, Techniques
from graphsys.trainers.pipeline.stage import Stage, Targets
from graphsys.trainers.pipeline.stage_cut import StageCut


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphData:
    """A labelled graph in dense ids; the arrays may be memory maps."""

    topology: Topology
    x: Array  # [N, D] float32
    y: Array  # [N] or [N, C]
    train: NodeIds  # [*] training nodes


def in_memory(name: str, shape: tuple[int, ...]) -> Tensor:  # noqa: ARG001 - what an allocator takes
    """Return zeros of private memory."""
    return torch.zeros(shape)


CPU = torch.device("cpu")


def assemble(
    model: LayeredModel,
    data: GraphData,
    table: ChunkTable,
    links: Links,
    *,
    cut: StageCut,
    objective: Objective,
    config: TrainerConfig,
    allocate: Allocate = in_memory,
    device: torch.device = CPU,
    exact_only: bool = False,
) -> Runtime:
    """Return the process of ``links``, ready for its first epoch but for the snapshot.

    Args:
        model: The whole network, on ``device``; the stage trains its own part of it.
        table: Of as many ways and slots as the shape of ``links``.
        cut: Which layers each stage runs.
        allocate: Makes the buffers, on ``device``.
        device: Where the process computes.
        exact_only: Leave out what only training needs; :meth:`Runtime.run_exactly` works.
    """
    graph = way_graph(data.topology, table, links.way).to(device)
    node = table.nodes_of(links.way)
    layers = cut.layers(links.stage)
    histories = Histories(
        graph,
        links,
        layers,
        [model.layer(index).message_channels for index in layers],
        allocate,
        rescale=config.rescale,
        exact_only=exact_only,
    )
    width = model.hidden_channels + model.shared_channels
    stage = Stage(
        model=model,
        first=layers.start,
        stop=layers.stop,
        histories=histories,
        inputs=allocate("inputs", (graph.num_own, width)),
        features=_features(data.x, node, graph, device),
        targets=_targets(data, node, graph, objective, device),
        seed=config.seed,
    )
    named = stage_parameters(model, data.x.shape[1], layers.start, layers.stop)
    techniques = Techniques(shuffle=config.shuffle_chunks, rescale=config.rescale, refresh=config.refresh)
    return Runtime(stage, links, new_optimizer(named.items(), config), techniques)


def _features(x: Array, node: NodeIds, graph: WayGraph, device: torch.device) -> Callable[[int], Tensor]:
    def of(slot: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x[node[graph.own(slot)]])).to(device)

    return of


def _targets(data: GraphData, node: NodeIds, graph: WayGraph, objective: Objective, device: torch.device) -> Targets:
    chosen = np.zeros(data.topology.num_nodes, np.bool_)
    chosen[data.train] = True
    rows = [np.flatnonzero(chosen[node[graph.own(slot)]]) for slot in range(graph.num_slots)]
    y = [torch.from_numpy(data.y[node[graph.own(slot)][row]]).to(device) for slot, row in enumerate(rows)]
    on_device = [torch.from_numpy(row).to(device) for row in rows]
    return Targets(objective=objective, rows=on_device, y=y, total=int(data.train.shape[0]))
