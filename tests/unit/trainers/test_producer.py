"""The process that makes windows: what it answers, what it weighs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.loading import scene
from helpers.producers import job_of, one_producer, producers

from graphsys.core.errors import ArtefactError, MemoryBudgetError, NodeIdError
from graphsys.core.units import MIB
from graphsys.storage.window import Window
from graphsys.trainers.producer import (
    TASKS,
    CalledOffError,
    MakingTask,
    Producer,
    ProducerJob,
    TaskRequest,
    WindowRequest,
)

MANY_SLOTS = np.full(1_000_000, -1, np.int64)  # more than fits into the channel's buffer


@pytest.fixture
def job(tmp_path: Path) -> ProducerJob:
    return job_of(scene(tiny_store(tmp_path), tmp_path / "run"))


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert producers() == []


def request(job: ProducerJob, index: int) -> WindowRequest:
    return WindowRequest(index=index, initial_slots=np.full(job.plan.num_slots, -1, np.int64))


def folder(job: ProducerJob) -> Path:
    return job.run.out / "windows/train"


def test_one_process_makes_one_window_per_request_and_says_what_each_cost(job: ProducerJob) -> None:
    producer = Producer(job, None)
    assert producers() == []  # it is started with the first window
    for index in (0, 1):
        reports = producer.make(request(job, index))
        assert [report.details["windows"] for report in reports.values()] == [1, 1]
        assert Window.open(folder(job) / f"window-000{index}.pack", None).header.window_index == index
        assert one_producer().memory_info().rss < 250 * MIB
    assert len(producers()) == 1
    producer.close()


def test_an_error_has_the_class_and_words_it_would_have_had_here(job: ProducerJob) -> None:
    producer = Producer(replace(job, plan=replace(job.plan, producer_bytes=1 << 20)), None)
    with pytest.raises(MemoryBudgetError, match=r"packing .*window-0000\.sample.* set pack\.window to fewer batches"):
        producer.make(request(job, 0))
    assert producers() == []  # an error is its last word


def test_an_error_arrives_although_the_request_could_not_be_sent(job: ProducerJob) -> None:
    producer = Producer(replace(job, store=job.store.parent / "gone.gs"), None)
    with pytest.raises(ArtefactError, match=r"gone\.gs"):
        producer.make(WindowRequest(index=0, initial_slots=MANY_SLOTS))


def test_a_bug_arrives_with_its_traceback(job: ProducerJob) -> None:
    producer = Producer(job, None)
    with pytest.raises(RuntimeError, match=r"the process that makes windows failed:\nTraceback"):
        producer.make(replace(request(job, 0), index=cast(int, "none")))


def test_after_an_error_the_next_window_can_be_made(job: ProducerJob) -> None:
    producer = Producer(job, None)
    with pytest.raises(NodeIdError):
        producer.make(WindowRequest(index=0, initial_slots=MANY_SLOTS))
    assert [path.name for path in folder(job).iterdir()] == ["window-0000.sample"]
    producer.make(request(job, 0))
    assert [path.name for path in folder(job).iterdir()] == ["window-0000.pack"]
    producer.close()


def test_a_closed_producer_makes_nothing(job: ProducerJob) -> None:
    producer = Producer(job, None)
    producer.make(request(job, 0))
    producer.close()
    assert producers() == []
    with pytest.raises(CalledOffError):
        producer.make(request(job, 1))


@pytest.mark.parametrize("task", TASKS)
def test_a_rehearsed_task_is_done_at_least_once_and_leaves_no_window(job: ProducerJob, task: MakingTask) -> None:
    producer = Producer(job, None)
    once, often = (producer.rehearse(TaskRequest(task=task, seconds=seconds)) for seconds in (0.0, 0.3))
    producer.close()
    assert once.units > 0
    assert once.unit_s > 0
    assert often.stopped - often.started >= 0.3
    assert 0 < often.seconds <= often.stopped - often.started
    assert often.units > once.units
    assert not folder(job).exists() or not list(folder(job).iterdir())


def test_windows_can_be_made_after_a_rehearsal(job: ProducerJob) -> None:
    producer = Producer(job, None)
    producer.rehearse(TaskRequest(task="sample", seconds=0.0))
    producer.make(request(job, 0))
    producer.close()
    assert [path.name for path in folder(job).iterdir()] == ["window-0000.pack"]
