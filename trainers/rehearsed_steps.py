"""Steps of a rehearsed training, and how fast they went."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from graphsys.trainers.batch import MiniBatch

_STEPS = 20  # that tell how fast they go
_START = 8  # of them, those that also pay for fresh buffers
_SECONDS = 4  # after which that has to do
_FEWEST = 4  # steps, however long they take


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """When consecutive steps ended; in front the start of the first one."""

    ends: list[float] = field(default_factory=lambda: [time.monotonic()])
    cpu_s: list[float] = field(default_factory=lambda: [time.process_time()])  # of all cores, at those times

    def add(self) -> None:
        """Mark the end of a step."""
        self.ends.append(time.monotonic())
        self.cpu_s.append(time.process_time())

    @property
    def num_steps(self) -> int:
        """Steps that ended."""
        return len(self.ends) - 1

    @property
    def batch_s(self) -> float:
        """Seconds of a step, the first ones left out."""
        return self._mean(self.ends)

    @property
    def batch_cpu_s(self) -> float:
        """Seconds of all cores together in which a step goes on."""
        return self._mean(self.cpu_s)

    @property
    def start_s(self) -> float:
        """Seconds that the first steps take longer."""
        return max(self.ends[self._first] - self.ends[0] - self._first * self.batch_s, 0.0)

    def _mean(self, times: list[float]) -> float:
        return (times[-1] - times[self._first]) / (self.num_steps - self._first)

    @property
    def _first(self) -> int:
        return min(_START, self.num_steps // 2)


def enough(marks: Marks) -> bool:
    """Whether there are enough steps to tell how fast they go, or it takes too long."""
    late = marks.ends[-1] - marks.ends[0] > _SECONDS
    return marks.num_steps >= (_FEWEST if late else _STEPS)


class Steps:
    """Steps over batches without end.

    Args:
        batches: without end.
        work: what is done with each.
    """

    def __init__(self, batches: Iterator[MiniBatch], work: Callable[[MiniBatch], None]) -> None:
        self._batches = batches
        self._work = work

    def take(self, *, until: Callable[[Marks], bool]) -> Marks:
        """Take steps from now on until it is enough, and return when they ended."""
        marks = Marks()
        while not until(marks):
            self._work(next(self._batches))
            marks.add()
        return marks
