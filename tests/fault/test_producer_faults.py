"""The process that makes windows is killed, crashes, meets a full disk, loses its trainer."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers.cli_runs import write_run
from helpers.graphs import tiny_store
from helpers.loading import MEMORY, Scene, same_runs, scene
from helpers.mounts import mounted_tmpfs
from helpers.producers import WAIT_S, job_of, one_producer, producers, striking
from helpers.training import run_config

from graphsys.core.errors import DiskError, MemoryBudgetError
from graphsys.core.progress import SILENT
from graphsys.core.units import KIB, MIB
from graphsys.storage.files import claimed_folder
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.checkpoint import list_checkpoints
from graphsys.trainers.fit import fit
from graphsys.trainers.loader import Loader
from graphsys.trainers.producer import ATTEMPTS, TASKS, MakingTask, Producer, TaskRequest, TaskRounds
from graphsys.trainers.rows import open_reader

# Windows of many batches, so that a signal sent when the first byte is written finds them half made.
SECTIONS: dict[str, Any] = {
    "sampler": {"fanouts": [3, 2], "batch_size": 4, "samples": "fresh"},
    "pack": {"mode": "packed", "window": 200},
    "trainer": {"epochs": 2, "threads": 1, "device": "cpu", "eval_every": 2},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"), num_nodes=2000, num_edges=20000)


@pytest.fixture
def make(store: Path, tmp_path: Path) -> Callable[..., Scene]:
    def make_scene(**options: Any) -> Scene:
        return scene(store, tmp_path / "run", **{"batch_size": 4, "window_batches": 200, **options})

    return make_scene


def state_bytes(out: Path) -> bytes:
    return (list_checkpoints(out / "checkpoints")[-1] / "state.pt").read_bytes()


def test_a_producer_killed_mid_window_is_replaced_and_changes_no_byte(store: Path, tmp_path: Path) -> None:
    fit(run_config(store, tmp_path / "whole", **SECTIONS))
    run = run_config(store, tmp_path / "out", **SECTIONS)
    with striking(signal.SIGKILL, folder=run.out / "windows/train", times=2) as struck:
        result = fit(run)
    assert len(struck) == 2
    assert result.stages["train"].details["producer_deaths"] == 2
    assert state_bytes(run.out) == state_bytes(tmp_path / "whole")
    assert list(run.out.rglob(".window-*")) == []
    assert producers() == []


def test_the_window_that_was_made_again_has_the_same_bytes(make: Callable[..., Scene]) -> None:
    kept: list[list[bytes]] = []
    for times in (0, 1):
        chosen = make(epochs=1, window_batches=100)
        with striking(signal.SIGKILL, folder=chosen.folder, times=times) as struck, chosen.windows() as windows:
            windows.begin(0)
            while not windows.ready(1):
                time.sleep(0.01)
            assert (windows.producer_deaths, len(struck)) == (times, times)
            kept.append([path.read_bytes() for path in sorted(chosen.folder.iterdir())])
        for path in chosen.folder.iterdir():
            path.unlink()
    assert len(kept[0]) == 2
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("number", "error", "match"),
    [
        (signal.SIGKILL, MemoryBudgetError, r"ended 3 times .* window 0 of split 'train', killed by SIGKILL; .*memory"),
        (signal.SIGSEGV, RuntimeError, r"ended 3 times .* window 0 of split 'train', by SIGSEGV"),
    ],
)
def test_a_producer_that_dies_again_and_again_is_given_up(
    make: Callable[..., Scene], number: signal.Signals, error: type[Exception], match: str
) -> None:
    chosen = make()
    with (
        chosen.windows() as windows,
        closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader,
        striking(number, folder=chosen.folder, times=ATTEMPTS),
        pytest.raises(error, match=match),
    ):
        list(Loader(windows, chosen.features, reader))
    assert list(chosen.folder.glob(".*")) == []
    assert len(chosen.batches()) == chosen.schedule.num_batches


def test_a_disk_that_fills_up_mid_window_is_named_and_leaves_no_half_window(store: Path, tmp_path: Path) -> None:
    found: list[MiniBatch] = []
    with mounted_tmpfs(tmp_path / "small", "size=64m") as folder:
        chosen = scene(store, folder / "run", batch_size=4, window_batches=200, epochs=2)
        with chosen.windows() as windows, closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader:
            windows.prepare(SILENT)
            first = (chosen.folder / "window-0000.pack").stat().st_size
            with (folder / "filler").open("wb") as filler:
                # Even when the first window is gone, the next does not fit beside its samples.
                os.posix_fallocate(filler.fileno(), 0, 64 * MIB - first - 64 * KIB)
            with pytest.raises(DiskError, match=r"cannot write .*window-0001\.\w+: the disk is full"):
                found.extend(Loader(windows, chosen.features, reader))
        assert len(found) == 200  # the window that was there
        assert list(chosen.folder.glob(".*")) == []
        (folder / "filler").unlink()
        undisturbed = scene(store, tmp_path / "run", batch_size=4, window_batches=200, epochs=2)
        assert same_runs(chosen.batches(), undisturbed.batches())


def test_a_budget_smaller_than_one_batch_is_refused_before_anything_starts(store: Path, tmp_path: Path) -> None:
    run = run_config(store, tmp_path / "out", **{**SECTIONS, "memory": "100KiB"})
    with pytest.raises(MemoryBudgetError, match="set memory to at least"):
        fit(run)
    assert producers() == []
    assert not run.out.exists()


@pytest.fixture
def long_run(store: Path, tmp_path: Path) -> Path:
    trainer = {"epochs": 3000, "eval_every": 3000}
    return write_run(tmp_path, store=store, sampler=SECTIONS["sampler"], pack=SECTIONS["pack"], trainer=trainer)


@pytest.fixture
def training(long_run: Path) -> Iterator["subprocess.Popen[str]"]:
    """The long run's process, in a group of its own; it does not outlive the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "graphsys.cli", "train", str(long_run), "--quiet"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    if process.poll() is None:
        process.kill()
        process.communicate()


def test_a_producer_ends_with_a_trainer_that_is_killed_and_keeps_the_run_claimed_until_then(
    long_run: Path, training: "subprocess.Popen[str]"
) -> None:
    producer = one_producer(training.pid)
    training.kill()
    training.communicate()
    with claimed_folder(long_run.parent / "run"):
        assert not producer.is_running() or producer.status() == psutil.STATUS_ZOMBIE


def test_a_claim_lasts_as_long_as_a_process_that_shares_it(tmp_path: Path) -> None:
    with claimed_folder(tmp_path / "run") as claim:
        (tmp_path / "run/file").touch()
        child = subprocess.Popen(["sleep", "600"], pass_fds=[claim])
    with pytest.raises(DiskError, match="another process is writing"), claimed_folder(tmp_path / "run"):
        pass
    child.kill()
    with claimed_folder(tmp_path / "run"):
        assert child.wait() == -signal.SIGKILL


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_shows_no_traceback_and_leaves_no_process(
    long_run: Path, training: "subprocess.Popen[str]", number: signal.Signals, code: int
) -> None:
    producer = one_producer(training.pid)
    windows, deadline = long_run.parent / "run/windows/train", time.monotonic() + WAIT_S
    while not any(path.name >= "window-0001" for path in windows.glob("window-*.pack")):  # each lasts a moment only
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(training.pid, number)  # as a terminal does, to the foreground group
    _, said = training.communicate(timeout=WAIT_S)
    assert said == "interrupted; run the same command again to go on\n"
    assert training.returncode == code
    assert not producer.is_running()


@pytest.mark.parametrize("task", TASKS)
def test_a_rehearsal_survives_the_death_of_its_process(make: Callable[..., Scene], task: MakingTask) -> None:
    producer = Producer(job_of(make()), None)
    replies: list[TaskRounds] = []

    def rehearse() -> None:
        producer.rehearse(TaskRequest(task=task, seconds=0.0))
        ready.set()
        replies.append(producer.rehearse(TaskRequest(task=task, seconds=0.5)))
        producer.close()

    ready = threading.Event()
    thread = threading.Thread(target=rehearse)
    thread.start()
    assert ready.wait(WAIT_S)
    one_producer().kill()
    thread.join(WAIT_S)
    assert replies[0].units > 0
    assert producer.deaths == 1
    assert producers() == []
