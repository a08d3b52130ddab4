"""Bytes that processes send each other per epoch of training, by arithmetic alone.

Source:
    GNNPipe (arXiv:2308.10087), analysis of communication: a pipeline sends every node's row once per boundary between
    stages and direction, graph parallelism every mirror's message once per layer and direction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficForecast:
    """Bytes sent per epoch by all processes together."""

    boundary: int  # rows, and their gradients, between stages
    exchange: int  # messages of mirrors, and their gradients, between the ways of a stage
    reduce: int  # gradients of weights, summed over the ways of each stage

    @property
    def total(self) -> int:
        """All bytes but those of the weights, which the paper leaves out."""
        return self.boundary + self.exchange

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"boundary": self.boundary, "exchange": self.exchange, "reduce": self.reduce, "total": self.total}


def forecast_traffic(
    *,
    num_nodes: int,
    stages: int,
    mirrors: int,
    ways: int,
    row_channels: int,
    message_channels: Sequence[int],
    weights: int,
    itemsize: int = 4,
) -> TrafficForecast:
    """Return the bytes of the hybrid of S stages and W ways; one stage is graph parallelism, one way the pipeline.

    Every way sends its own nodes' rows over its own boundaries, so that all ways together send each node's row once per
    boundary; within each stage the ways exchange messages for that stage's layers, so that each layer counts once.

    Args:
        num_nodes: Nodes N of the graph.
        stages: Stages S.
        mirrors: M of all ways together, 0 for one way; see
            :func:`graphsys.trainers.pipeline.chunks.count_mirrors`.
        ways: Ways W.
        row_channels: Columns between layers, and of the rows that all layers share: d + d_shared.
        message_channels: Columns of each layer's messages.
        weights: Numbers that are trained, in all stages together.
        itemsize: Bytes per number.
    """
    return TrafficForecast(
        boundary=pipeline_nbytes(num_nodes, stages, row_channels, itemsize=itemsize),
        exchange=graph_parallel_nbytes(mirrors, message_channels, itemsize=itemsize),
        reduce=reduce_nbytes(weights, ways, itemsize=itemsize),
    )


def pipeline_nbytes(num_nodes: int, stages: int, row_channels: int, *, itemsize: int = 4) -> int:
    """Return ``2 (S - 1) N (d + d_shared) itemsize``: rows forward, gradients backward."""
    return 2 * (stages - 1) * num_nodes * row_channels * itemsize


def graph_parallel_nbytes(mirrors: int, message_channels: Sequence[int], *, itemsize: int = 4) -> int:
    """Return ``2 M itemsize`` times the sum of all layers' message columns: messages forward, gradients backward.

    The paper's first layer sends features, which gives ``d_in + (L - 1) d`` columns; an encoder makes it ``L d``.
    """
    return 2 * mirrors * sum(message_channels) * itemsize


def reduce_nbytes(weights: int, ways: int, *, itemsize: int = 4) -> int:
    """Return the least bytes that summing the weights' gradients over W ways takes: ``2 (W - 1)`` times their size.

    Source:
        Patarasuk, Yuan 2009, bandwidth optimal all-reduce: each of W sends ``2 (W - 1) / W`` of the whole.
    """
    return 2 * (ways - 1) * weights * itemsize
