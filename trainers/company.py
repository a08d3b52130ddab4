"""How training and the making of its windows slow each other down.

Steps, sampling and packing share cores, caches and disk, and the windows' maker is nice: no formula of shares foretells
what that comes to. So a rehearsed training goes on while a real producer samples and packs beside it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from graphsys.trainers.producer import TASKS, MakingTask, Producer, ProducerJob, TaskRequest, TaskRounds

_STEPS = 20  # of training alone, for whose time each task goes on beside it
_LEAST_S, _MOST_S = 0.2, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Slowdown:
    """How many times as long both sides take while they go on at the same time; at least 1."""

    training: float
    making: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """Training and the process that makes its windows."""

    slowdowns: Mapping[MakingTask, Slowdown]  # of what was rehearsed
    spawn_s: float = 0.0  # seconds until that process is there
    first_s: Mapping[MakingTask, float] = field(default_factory=dict)  # seconds that its first window takes longer

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def shared_cores(cores: int, *, busy: float, sample_threads: int) -> Company:
    """Return what is assumed unrehearsed: both sides take longer as far as the cores do not do for both.

    Args:
        cores: there are.
        busy: of them, as many as training keeps busy.
        sample_threads: threads that sample; one packs.
    """
    threads = {"sample": sample_threads, "pack": 1}
    shares = {task: max((busy + threads[task]) / cores, 1.0) for task in TASKS}
    return Company(slowdowns={task: Slowdown(training=share, making=share) for task, share in shares.items()})


def rehearse_company(
    job: ProducerJob, alone: Mapping[MakingTask, float], *, batch_s: float,
    train_until: Callable[[Callable[[], bool]], Sequence[float]],
) -> Company:  # fmt: skip
    """Make windows in a process beside training, and compare with what either takes alone.

    Args:
        job: what the producer makes; ``run.out`` is a scratch folder.
        alone: what is rehearsed, and the seconds that a unit of it takes with nothing beside it.
        batch_s: seconds of a training batch alone.
        train_until: trains until its argument says so; returns when it began and when every batch ended, on the clock
            of :func:`time.monotonic`.

    Raises:
        MemoryBudgetError, InputError, CorruptError, DiskError: As :meth:`graphsys.trainers.producer.Producer.rehearse`.
    """
    seconds = min(max(_STEPS * batch_s, _LEAST_S), _MOST_S)
    producer = Producer(job, None)

    def ask(seconds: float) -> dict[MakingTask, TaskRounds]:
        return {task: producer.rehearse(TaskRequest(task=task, seconds=seconds)) for task in alone}

    with ExitStack() as stack:
        stack.callback(producer.close)
        # The process ends with the thread that started it.
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="graphsys-company"))
        stack.callback(producer.call_off)
        started = time.monotonic()
        first = pool.submit(ask, 0.0).result()
        going_on = pool.submit(ask, seconds)
        ends = train_until(going_on.done)
        beside = going_on.result()
    return Company(
        slowdowns={
            task: Slowdown(
                training=max(seconds_per_batch(ends, rounds) / batch_s, 1.0),
                making=max(rounds.unit_s / alone[task], 1.0),
            )
            for task, rounds in beside.items()
        },
        spawn_s=min(rounds.started for rounds in first.values()) - started,
        first_s={task: max(rounds.seconds - rounds.units * alone[task], 0.0) for task, rounds in first.items()},
    )


def seconds_per_batch(ends: Sequence[float], rounds: TaskRounds) -> float:
    """Return the seconds per batch while ``rounds`` went on; batches under way at an end count in part.

    Args:
        ends: when training began, and when every batch ended.
    """
    first, last = np.interp((rounds.started, rounds.stopped), ends, np.arange(len(ends)))
    return float((rounds.stopped - rounds.started) / max(last - first, 1e-9))
