"""How long an epoch of a pipeline takes, and how much of it processes wait for each other.

All chunks go forward through the stages, then all go backward in reverse order. Time is cut into slots: in each, every
stage that has a chunk runs it, and the slowest one ends the slot.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from graphsys.trainers.pipeline.stage_cut import ChunkCosts, Seconds, StageCut


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotForecast:
    """One epoch, foretold."""

    num_slots: int  # both ways: 2 (K + S - 1)
    bubble_slots: float  # share of the slots that a stage waits: (S - 1) / (K + S - 1)
    forward_s: float
    backward_s: float
    epoch_s: float  # both
    bubble: float  # share of the processes' seconds that they wait: for their turn, or for a slower stage

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def forecast_slots(costs: ChunkCosts, cut: StageCut, order: Sequence[int] | None = None) -> SlotForecast:
    """Return what an epoch takes.

    Args:
        costs: Of all chunks of a way; for several ways see :meth:`ChunkCosts.lockstep`.
        cut: The layers of each stage.
        order: The chunks [K] in their turn; None: by number.

    Source:
        GNNPipe (arXiv:2308.10087): the simulator of its stage cut.
    """
    return forecast_passes(cut.of_stages(costs.forward), cut.of_stages(costs.backward), order)


def forecast_passes(forward: Seconds, backward: Seconds, order: Sequence[int] | None = None) -> SlotForecast:
    """Return what an epoch takes, by the seconds of its S stages for the K chunks.

    Args:
        forward: [S, K].
        backward: [S, K].
        order: As in :func:`forecast_slots`.
    """
    stages, chunks = forward.shape
    turns = range(chunks) if order is None else order
    forward_s = _passage(forward, turns)
    backward_s = _passage(backward[::-1], list(reversed(turns)))
    epoch_s = forward_s + backward_s
    busy_s = float(forward.sum() + backward.sum())
    return SlotForecast(
        num_slots=2 * (chunks + stages - 1),
        bubble_slots=ideal_bubble(stages, chunks),
        forward_s=forward_s,
        backward_s=backward_s,
        epoch_s=epoch_s,
        bubble=1 - busy_s / (stages * epoch_s) if epoch_s else 0.0,
    )


def ideal_bubble(num_stages: int, num_chunks: int) -> float:
    """Return the share of an epoch that a stage waits when all stages and chunks cost the same."""
    return (num_stages - 1) / (num_chunks + num_stages - 1)


def _passage(cost: Seconds, turns: Sequence[int]) -> float:
    """Return the seconds until all chunks are through; ``cost`` [S, K] is of the stages in the order of passage."""
    stages, chunks = cost.shape
    return sum(
        max(float(cost[stage, turns[slot - stage]]) for stage in range(stages) if 0 <= slot - stage < chunks)
        for slot in range(chunks + stages - 1)
    )
