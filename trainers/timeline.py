"""When what happens: training on each window, and the making of the next one beside it.

Both start together, and the later of them lets the next training and the next making begin. While both go on, each
takes longer, as rehearsed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from graphsys.trainers.company import Company
from graphsys.trainers.producer import MakingTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is done in one go while a window is made."""

    stage: MakingTask | None  # whose report counts it
    task: MakingTask
    seconds: float  # with nothing beside it


@dataclass(slots=True, kw_only=True)
class Timeline:
    """Seconds of the stages; those of making windows also run beside those of training."""

    sample: float = 0.0
    pack: float = 0.0
    train: float = 0.0

    def add(self, stage: MakingTask | None, seconds: float) -> None:
        """Add to a stage of making windows."""
        if stage is not None:
            setattr(self, stage, getattr(self, stage) + seconds)


def train_beside(
    line: Timeline, batches_s: Sequence[float], makings: Sequence[Sequence[Part]], company: Company
) -> None:
    """Add training on every window, and the making of all but the first, to ``line``.

    Args:
        batches_s: per window, the seconds of training on it with no other being made.
        makings: per window but the first, what making it takes, in order.
        company: how both slow each other down, and what starting the process that makes windows takes.
    """
    for index, seconds in enumerate(batches_s):
        parts = list(makings[index]) if index < len(makings) else []
        if index == 0 and parts:
            parts = [*_first_parts(company), *parts]
        _side_by_side(line, seconds, parts, company)


def _first_parts(company: Company) -> list[Part]:
    """Return what comes before the first window that the process makes: it has to be started, and warms up."""
    warming = [Part(stage=task, task=task, seconds=seconds) for task, seconds in company.first_s.items()]
    return [Part(stage=None, task="sample", seconds=company.spawn_s), *warming]


def _side_by_side(line: Timeline, batches_s: float, parts: Sequence[Part], company: Company) -> None:
    """Train for ``batches_s``, were it alone, and make a window meanwhile; until both are done."""
    left = batches_s
    for part in parts:
        slower = company.slowdowns[part.task]
        both = min(left * slower.training, part.seconds * slower.making)
        seconds = both + part.seconds - both / slower.making
        left -= both / slower.training
        line.add(part.stage, seconds)
        line.train += seconds
    line.train += max(left, 0.0)
