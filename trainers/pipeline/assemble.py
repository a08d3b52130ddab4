"""Puts one process of a pipeline together: its layers, its part of the graph, its weights and its buffers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from graphsys.core.config import TrainerConfig
from graphsys.core.errors import ConfigError
from graphsys.core.types import Array, NodeIds, Topology
from graphsys.models.layered import LayeredModel
from graphsys.trainers.objective import Objective
from graphsys.trainers.pipeline.chunks import ChunkTable, WayGraph, way_graph
from graphsys.trainers.pipeline.history import Allocate, Histories
from graphsys.trainers.pipeline.links import Links
from graphsys.trainers.pipeline.runtime import Runtime, Techniques
from graphsys.trainers.pipeline.stage import Stage, Targets
from graphsys.trainers.state import new_optimizer

Weights = list[tuple[str, Parameter]]


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


def assemble(
    model: LayeredModel,
    data: GraphData,
    table: ChunkTable,
    links: Links,
    *,
    cut: Sequence[int],
    objective: Objective,
    config: TrainerConfig,
    allocate: Allocate = in_memory,
) -> Runtime:
    """Return the process of ``links``, ready for its first epoch but for the snapshot.

    Args:
        model: The whole network; the stage trains its own part of it.
        table: Of as many ways and slots as the shape of ``links``.
        cut: [S + 1] bounds of the stages' layers.
        allocate: Makes the buffers.
    """
    graph = way_graph(data.topology, table, links.way)
    node = table.nodes_of(links.way)
    first, stop = cut[links.stage], cut[links.stage + 1]
    layers = range(first, stop)
    histories = Histories(
        graph,
        links,
        layers,
        [model.layer(index).message_channels for index in layers],
        allocate,
        rescale=config.rescale,
    )
    width = model.hidden_channels + model.shared_channels
    stage = Stage(
        model=model,
        first=first,
        stop=stop,
        histories=histories,
        inputs=allocate("inputs", (graph.num_own, width)),
        features=_features(data.x, node, graph),
        targets=_targets(data, node, graph, objective),
        seed=config.seed,
    )
    weights = [weight for _, weight in stage_weights(model, cut, links.stage, num_features=data.x.shape[1])]
    techniques = Techniques(shuffle=config.shuffle_chunks, rescale=config.rescale, refresh=config.refresh)
    return Runtime(stage, links, new_optimizer(weights, config), techniques)


def _features(x: Array, node: NodeIds, graph: WayGraph) -> Callable[[int], Tensor]:
    def of(slot: int) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(x[node[graph.own(slot)]]))

    return of


def _targets(data: GraphData, node: NodeIds, graph: WayGraph, objective: Objective) -> Targets:
    chosen = np.zeros(data.topology.num_nodes, np.bool_)
    chosen[data.train] = True
    rows = [np.flatnonzero(chosen[node[graph.own(slot)]]) for slot in range(graph.num_slots)]
    y = [torch.from_numpy(data.y[node[graph.own(slot)][row]]) for slot, row in enumerate(rows)]
    return Targets(
        objective=objective, rows=[torch.from_numpy(row) for row in rows], y=y, total=int(data.train.shape[0])
    )


def stage_weights(model: LayeredModel, cut: Sequence[int], stage: int, *, num_features: int) -> Weights:
    """Return the weights that a stage trains, by name: its layers', the encoder's first, the decoder's last.

    Raises:
        ConfigError: Encoder and decoder share a weight, and different stages run them.
    """
    encoder = _encoder_names(model, num_features)
    owned = []
    for name, weight in model.named_parameters():
        kind, _, rest = name.partition(".")
        if kind == "layers":
            at = int(rest.partition(".")[0])
            mine = cut[stage] <= at < cut[stage + 1]
        else:
            mine = stage == (0 if name in encoder else len(cut) - 2)
        if mine and weight.requires_grad:
            owned.append((name, weight))
    return owned


def _encoder_names(model: LayeredModel, num_features: int) -> set[str]:
    """Return the names of the weights that the encoder's output depends on."""
    named = [item for item in model.named_parameters() if item[1].requires_grad and not item[0].startswith("layers.")]
    if not named:
        return set()
    training = model.training
    model.eval()  # which draws nothing
    x, shared = model.encode(torch.zeros(1, num_features))
    decoded = model.decode(torch.zeros(1, model.hidden_channels))
    model.train(training)
    encoder = _used(x if shared is None else torch.cat([x, shared], dim=1), named)
    both = encoder & _used(decoded, named)
    if both:
        raise ConfigError(
            f"the network's encoder and decoder share the weight {min(both)}; a pipeline trains each weight in one "
            f"place: give them weights of their own"
        )
    return encoder


def _used(output: Tensor, named: Weights) -> set[str]:
    if not output.requires_grad:
        return set()
    gradients = torch.autograd.grad(output.sum(), [weight for _, weight in named], allow_unused=True)
    return {name for (name, _), gradient in zip(named, gradients, strict=True) if gradient is not None}
