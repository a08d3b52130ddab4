"""Times the parts of a network on a few chunks of the graph, by the kernels that training runs."""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch

from graphsys.core.config import TrainerConfig
from graphsys.models.layered import LayeredModel
from graphsys.trainers.objective import Objective
from graphsys.trainers.pipeline.assemble import GraphData, assemble
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.history import Allocate
from graphsys.trainers.pipeline.links import Links
from graphsys.trainers.pipeline.network import CostRates, Counts
from graphsys.trainers.pipeline.partition import NODE_COST
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.stage import Stage
from graphsys.trainers.pipeline.stage_cut import ChunkCosts, equal_cut

Clock = Callable[[], float]

_CHUNKS = 4  # timed, from the cheapest to the dearest
_REPEATS = 4  # of short work, the fastest counts: what else the machine does only slows it down
_LONG_S = 0.2  # work that took as long is not repeated


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkSample:
    """What was measured of K chunks."""

    costs: ChunkCosts
    nodes: Counts  # [K]
    edges: Counts  # [K] in-edges of the chunks' nodes

    @classmethod
    def joined(cls, parts: "list[Self]") -> Self:
        """Return several samples as one."""
        forward, backward = (
            np.concatenate([getattr(part.costs, name) for part in parts], axis=1) for name in ("forward", "backward")
        )
        return cls(
            costs=ChunkCosts(forward=forward, backward=backward),
            nodes=np.concatenate([part.nodes for part in parts]),
            edges=np.concatenate([part.edges for part in parts]),
        )

    def rates(self) -> CostRates:
        """Return the rates that explain the sample best."""
        return CostRates.fit(self.costs, self.nodes, self.edges)


def time_chunks(
    model: LayeredModel,
    data: GraphData,
    table: ChunkTable,
    *,
    objective: Objective,
    config: TrainerConfig,
    allocate: Allocate,
    device: torch.device,
    clock: Clock = time.perf_counter,
) -> ChunkSample:
    """Return the seconds of every layer on up to four chunks; the encoder's are the first layer's, the decoder's the
    last one's.

    The model is left as it is, and torch's generator is not. All ways are taken as one, so that nothing is sent.

    Args:
        model: On ``device``.
        table: Of any shape.
        allocate: Makes the rows of one layer, on ``device``.
        clock: Returns seconds; those of a thread leave out what other processes take of its core.

    Cost:
        Holds the whole graph twice, and the rows of one layer.
    """
    whole = ChunkTable(node=table.node, counts=table.counts.reshape(1, -1))
    runtime = assemble(
        copy.deepcopy(model),
        data,
        whole,
        Links(Shape(stages=1, ways=1, slots=whole.num_slots), 0, 1.0),
        cut=equal_cut(model.num_layers, 1),
        objective=objective,
        config=config,
        allocate=allocate,
        device=device,
        exact_only=True,
    )
    stage = runtime.stage
    stage.model.train()
    stage.inputs.normal_()
    graph = stage.histories.graph
    starts = np.array(graph.slot_starts)
    nodes, edges = np.diff(starts), np.diff(graph.into.indptr.cpu().numpy()[starts].astype(np.int64))
    slots = _some(nodes * NODE_COST + edges)
    _time_layer(stage, 0, slots[-1], device, clock)  # what only the first call takes is none of theirs
    times = np.array(
        [[_time_layer(stage, layer, slot, device, clock) for slot in slots] for layer in range(model.num_layers)]
    )
    ends = np.zeros((1, len(slots)))
    forward, backward = (np.concatenate([ends, times[:, :, way], ends]) for way in range(2))
    return ChunkSample(costs=ChunkCosts(forward=forward, backward=backward), nodes=nodes[slots], edges=edges[slots])


def _some(cost: Counts) -> list[int]:
    """Return up to four of the chunks, evenly from the cheapest to the dearest."""
    places = np.unique(np.linspace(0, cost.shape[0] - 1, min(_CHUNKS, cost.shape[0])).astype(np.int64))
    chosen: list[int] = np.argsort(cost, kind="stable")[places].tolist()
    return chosen


def _time_layer(whole: Stage, layer: int, slot: int, device: torch.device, clock: Clock) -> tuple[float, float]:
    """Return the seconds of a layer's forward and backward pass over a chunk, as a stage of its own."""
    stage = replace(whole, first=layer, stop=layer + 1)
    own = stage.histories.graph.own(slot)
    of_output = None if stage.is_last else torch.randn(own.stop - own.start, stage.width, device=device)
    forward_s = _least(lambda: stage.forward(slot), device, clock)
    backward_s = _least(lambda: stage.backward(slot, of_output), device, clock)
    return forward_s, backward_s


def _least(work: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """Return the seconds of the fastest of a few calls."""
    times: list[float] = []
    while len(times) < _REPEATS and sum(times) < _LONG_S:
        _settle(device)
        started = clock()
        work()
        _settle(device)
        times.append(clock() - started)
    return min(times)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
