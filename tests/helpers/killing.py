"""Processes of a pipeline that are killed once, at a moment inside an epoch, and a launcher that replaces them."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.pipelines import exit_codes, run_worker

from graphsys.core.config import RunConfig
from graphsys.trainers.pipeline import saved
from graphsys.trainers.pipeline.history import Histories
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.stage import Stage

# moment -> (object, its function, which call of it is the last, whether that call ends first). With four chunks a
# stage calls its passes four times an epoch; a checkpoint writes every layer of the stage.
MOMENTS: dict[str, tuple[Any, str, int, bool]] = {
    "forward": (Stage, "forward", 4 * 3 + 2, False),
    "backward": (Stage, "backward", 4 * 3 + 3, True),
    "update": (Histories, "end_epoch", 4, False),  # the optimizer has taken its step
    "checkpoint": (saved, "_write", 2 * 3 + 2, True),
}


@dataclass(frozen=True, slots=True)
class Kill:
    """Process ``rank`` is killed at a moment, unless ``marker`` says that it was before."""

    moment: str
    rank: int
    marker: Path


def launch(run: RunConfig, folder: Path, kill: Kill) -> list[list[int | None]]:
    """Train as a launcher does that starts all again when one is lost; return the exit codes of each start."""
    starts: list[list[int | None]] = []
    while not starts or (any(starts[-1]) and len(starts) <= run.cluster.max_failures):
        starts.append(exit_codes(work, Shape.of(run).world_size, folder / f"start-{len(starts)}", run, kill))
    return starts


def work(rank: int, run: RunConfig, kill: Kill) -> None:
    """Train one process of a run."""
    with pytest.MonkeyPatch.context() as patch:
        if rank == kill.rank and not kill.marker.exists():
            owner, name, calls, ends = MOMENTS[kill.moment]
            patch.setattr(owner, name, _dying(getattr(owner, name), calls, ends, kill.marker))
        run_worker(rank, run)


def _dying(function: Callable[..., Any], calls: int, ends: bool, marker: Path) -> Callable[..., Any]:
    left = calls

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        left -= 1
        if left == 0 and not ends:
            _die(marker)
        result = function(*arguments, **named)
        if left == 0:
            _die(marker)
        return result

    return call


def _die(marker: Path) -> None:
    marker.touch()
    os.kill(os.getpid(), signal.SIGKILL)
