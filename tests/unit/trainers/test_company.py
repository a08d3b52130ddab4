import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.graphs import tiny_store
from helpers.loading import scene
from helpers.producers import job_of, producers

from graphsys.core.errors import MemoryBudgetError
from graphsys.trainers.company import rehearse_company, seconds_per_batch
from graphsys.trainers.producer import ProducerJob, TaskRounds


@pytest.fixture
def job(tmp_path: Path) -> ProducerJob:
    return job_of(scene(tiny_store(tmp_path), tmp_path / "run"))


def train_until(over: Callable[[], bool]) -> list[float]:
    ends = [time.monotonic()]
    while not over():
        time.sleep(0.01)
        ends.append(time.monotonic())
    return ends


def rounds(started: float, stopped: float) -> TaskRounds:
    return TaskRounds(started=started, stopped=stopped, seconds=stopped - started, units=1)


def test_batches_under_way_at_an_end_count_in_part() -> None:
    ends = [0.0, 1.0, 2.0, 4.0, 6.0]  # the last two took twice as long
    assert seconds_per_batch(ends, rounds(0.0, 2.0)) == pytest.approx(1.0)
    assert seconds_per_batch(ends, rounds(3.0, 5.0)) == pytest.approx(2.0)
    assert seconds_per_batch(ends, rounds(1.5, 3.0)) == pytest.approx(1.5)


def test_both_sides_are_set_against_what_they_take_alone(job: ProducerJob) -> None:
    found = rehearse_company(job, {"sample": 1e-9, "pack": 1.0}, batch_s=1e-3, train_until=train_until)
    assert found.slowdowns["sample"].making > 1  # a batch takes longer than a nanosecond
    assert found.slowdowns["pack"].making == 1  # and a byte less than a second
    assert all(slower.training > 5 for slower in found.slowdowns.values())
    assert found.first_s["sample"] > 0
    assert found.first_s["pack"] == 0
    assert producers() == []


def test_what_the_process_cannot_do_is_said_and_the_process_gone(job: ProducerJob) -> None:
    small = replace(job, plan=replace(job.plan, producer_bytes=1 << 12))
    with pytest.raises(MemoryBudgetError):
        rehearse_company(small, {"sample": 1.0, "pack": 1.0}, batch_s=1e-3, train_until=train_until)
    assert producers() == []


def test_a_training_that_breaks_off_takes_the_process_with_it(job: ProducerJob) -> None:
    def interrupted(over: Callable[[], bool]) -> list[float]:
        assert not over()
        assert len(producers()) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rehearse_company(job, {"sample": 1.0}, batch_s=1.0, train_until=interrupted)
    assert producers() == []
