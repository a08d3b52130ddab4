"""What is known and decided of a run's two schedules before any window is made."""

from dataclasses import dataclass

from graphsys.trainers.pilot import Pilot
from graphsys.trainers.plan import PackPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilots:
    """A few batches of each of a run's two schedules."""

    train: Pilot
    val: Pilot | None  # None without validation nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlans:
    """The plans of a run's two schedules."""

    train: PackPlan
    val: PackPlan | None  # None without validation nodes
    together: bool  # whether the batches of both may be open at once
    pilots: Pilots
