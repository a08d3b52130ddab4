"""Foretells graph parallelism, the pipeline and every hybrid of n processes, and says which one to take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsys.core.errors import ConfigError
from graphsys.core.units import format_bytes
from graphsys.trainers.pipeline.network import CostRates, GraphSplit, NetworkShape
from graphsys.trainers.pipeline.slots import SlotForecast, forecast_slots
from graphsys.trainers.pipeline.stage_cut import ChunkCosts, StageCut, balanced_cut
from graphsys.trainers.pipeline.stage_memory import StageMemory, stage_memory
from graphsys.trainers.pipeline.traffic import TrafficForecast, forecast_traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the machine allows."""

    memory: int | None = None  # bytes of data of one process; None: no limit
    send_bytes_s: float | None = None  # bytes per second that one process can send; None: sending takes no time


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyForecast:
    """S stages of W ways, foretold."""

    stages: int
    ways: int
    chunks: int  # of the whole graph
    cut: StageCut
    slots: SlotForecast
    traffic: TrafficForecast
    memory: tuple[StageMemory, ...]  # by stage, of the largest process
    epoch_s: float  # computing by slots, and sending

    @property
    def name(self) -> str:
        """What users call it."""
        if self.stages == 1:
            return "single" if self.ways == 1 else "graph parallel"
        return "pipeline" if self.ways == 1 else "hybrid"

    @property
    def is_exact(self) -> bool:
        """Whether every message is fresh: each way has one chunk."""
        return self.chunks == self.ways

    @property
    def most_memory(self) -> int:
        """Bytes of the largest process."""
        return max(memory.total for memory in self.memory)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "stages": self.stages,
            "ways": self.ways,
            "chunks": self.chunks,
            "exact": self.is_exact,
            "cut": list(self.cut.bounds),
            "epoch_s": self.epoch_s,
            "slots": self.slots.as_dict(),
            "bytes": self.traffic.as_dict(),
            "memory": [memory.as_dict() for memory in self.memory],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Every way count that divides the processes, and the one to take."""

    forecasts: tuple[StrategyForecast, ...]  # by ways, ascending
    left_out: Mapping[int, str]  # ways -> why they cannot be
    best: StrategyForecast
    reason: str


def ways_of(workers: int) -> list[int]:
    """Return the way counts that divide ``workers`` processes, ascending."""
    return [ways for ways in range(1, workers + 1) if workers % ways == 0]


def advise(
    network: NetworkShape, splits: Mapping[int, GraphSplit], rates: CostRates, workers: int, limits: Limits
) -> Advice:
    """Return the forecasts of all ways to spread the network over ``workers`` processes, and the one to take.

    Args:
        network: Its widths and weights.
        splits: The graph in as many ways as each key of :func:`ways_of` says.
        rates: What the network's parts take for a chunk.
        workers: Processes n.
        limits: Those that need more memory are advised against; of the others the fastest is best.

    Raises:
        ConfigError: There are more processes than layers and nodes can be spread over.
    """
    forecasts, left_out = [], {}
    for ways in ways_of(workers):
        if workers // ways > network.num_layers:
            left_out[ways] = f"{workers // ways} stages are more than the {network.num_layers} layers"
        elif ways not in splits:
            left_out[ways] = f"the graph cannot be split into {ways} ways"
        else:
            forecasts.append(forecast(network, splits[ways], rates, workers // ways, limits))
    if not forecasts:
        raise ConfigError(
            f"cluster.num_workers is {workers}, and no strategy fits: {'; '.join(left_out.values())}; give fewer"
        )
    best, reason = _choose(forecasts, limits)
    return Advice(forecasts=tuple(forecasts), left_out=left_out, best=best, reason=reason)


def forecast(
    network: NetworkShape, split: GraphSplit, rates: CostRates, stages: int, limits: Limits
) -> StrategyForecast:
    """Return what S stages on the ways of ``split`` come to; the layers are cut so that the slowest stage is fastest.

    Raises:
        ConfigError: There are more stages than layers.
    """
    costs = _lockstep(rates, split)
    cut = balanced_cut(costs.of_layers, stages)
    slots = forecast_slots(costs, cut)
    traffic = forecast_traffic(
        num_nodes=split.num_nodes,
        stages=stages,
        mirrors=sum(split.mirrors),
        ways=split.num_ways,
        row_channels=network.row_channels,
        message_channels=network.message_channels,
        weights=sum(network.layer_weights),
    )
    sent = (traffic.total + traffic.reduce) / (stages * split.num_ways)
    return StrategyForecast(
        stages=stages,
        ways=split.num_ways,
        chunks=split.num_ways * split.num_slots,
        cut=cut,
        slots=slots,
        traffic=traffic,
        memory=tuple(stage_memory(network, split, cut.layers(stage)) for stage in range(stages)),
        epoch_s=slots.epoch_s + (sent / limits.send_bytes_s if limits.send_bytes_s else 0.0),
    )


def _lockstep(rates: CostRates, split: GraphSplit) -> ChunkCosts:
    ways = zip(split.nodes, split.edges, strict=True)
    return ChunkCosts.lockstep([rates.costs(np.asarray(nodes), np.asarray(edges)) for nodes, edges in ways])


def _choose(forecasts: list[StrategyForecast], limits: Limits) -> tuple[StrategyForecast, str]:
    """Return the best forecast, and why."""
    fitting = [one for one in forecasts if limits.memory is None or one.most_memory <= limits.memory]
    if not fitting:
        best = min(forecasts, key=lambda one: one.most_memory)
        found, limit = format_bytes(best.most_memory), format_bytes(limits.memory or 0)
        return best, f"none fits {limit} per process; it needs least, {found}"
    best = min(fitting, key=lambda one: (one.epoch_s, one.traffic.total))
    others = [one for one in fitting if one is not best]
    if len(forecasts) == 1:
        return best, "nothing else is possible"
    reason = f"fastest, {best.epoch_s:.3g} s per epoch"
    if others:
        second = min(others, key=lambda one: one.epoch_s)
        reason += f" against {second.epoch_s:.3g} s of {second.stages} x {second.ways}"
    if len(fitting) < len(forecasts):
        reason += f", of the {len(fitting)} that fit {format_bytes(limits.memory or 0)} per process"
    return best, reason
