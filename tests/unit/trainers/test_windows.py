"""Sets of windows: what is made, kept, made again, refused and removed."""

import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.loading import MEMORY, CountingTask, Scene, same_runs, scene
from helpers.producers import one_producer, producers

from graphsys.core.errors import CorruptError, StaleArtefactError
from graphsys.core.progress import SILENT, Progress, Task
from graphsys.storage.codec import encode
from graphsys.storage.window import Window
from graphsys.trainers.loader import Loader
from graphsys.trainers.rows import open_reader


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def make(store: Path, tmp_path: Path) -> Callable[..., Scene]:
    def make_scene(**options: Any) -> Scene:
        return scene(store, tmp_path / "run", **options)

    return make_scene


class RecordingProgress:
    """Keeps every task under its title."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[CountingTask, float | None]] = {}

    def start(self, title: str, total: float | None, unit: str) -> Task:
        assert unit == "batches"
        task = CountingTask()
        self.tasks[title] = task, total
        return task

    def finish(self, task: Task) -> None:
        pass

    def message(self, text: str) -> None:
        pass


def _prepare(chosen: Scene, progress: Progress = SILENT, *, overwrite: bool = False) -> dict[str, int]:
    """Prepare all windows; return how many each stage made."""
    with chosen.windows(overwrite=overwrite) as windows:
        windows.prepare(progress)
        return {name: report.details["windows"] for name, report in windows.reports.items()}


def _names(chosen: Scene) -> list[str]:
    return sorted(path.name for path in chosen.folder.iterdir())


def _stamps(chosen: Scene) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in chosen.folder.iterdir()}


def test_frozen_windows_are_made_once(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    assert _prepare(chosen) == {"sample": 3, "pack": 3}
    assert _names(chosen) == [f"window-000{index}.pack" for index in range(3)]
    before = _stamps(chosen)
    with chosen.windows() as windows:
        windows.prepare(SILENT)
        assert [report.skipped for report in windows.reports.values()] == [True, True]
    assert _stamps(chosen) == before


@pytest.mark.parametrize("mode", ["memory", "direct"])
def test_modes_that_need_no_packing_keep_the_samples(make: Callable[..., Scene], mode: str) -> None:
    chosen = make(samples="frozen", mode=mode)
    assert _prepare(chosen) == {"sample": 3, "pack": 0}
    assert _names(chosen) == [f"window-000{index}.sample" for index in range(3)]


def test_progress_counts_every_batch_of_both_stages_also_of_windows_that_are_there(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    for _ in range(2):
        progress = RecordingProgress()
        _prepare(chosen, progress)
        for title in ("sample train", "pack train"):
            task, total = progress.tasks[title]
            assert total == chosen.schedule.batches_per_epoch
            assert task.done == pytest.approx(total)


def test_a_killed_preparation_is_continued_where_it_stopped(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    _prepare(chosen)
    whole = {path.name: path.read_bytes() for path in chosen.folder.iterdir()}
    (chosen.folder / "window-0002.pack").unlink()
    (chosen.folder / ".window-0002.pack.partial").write_bytes(b"half a window")
    assert _prepare(chosen) == {"sample": 1, "pack": 1}
    assert {path.name: path.read_bytes() for path in chosen.folder.iterdir()} == whole


def test_samples_made_beforehand_are_packed(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    with chosen.windows() as windows:
        windows.sample(SILENT)
    assert _names(chosen) == [f"window-000{index}.sample" for index in range(3)]
    assert _prepare(chosen) == {"sample": 0, "pack": 3}
    assert _names(chosen) == [f"window-000{index}.pack" for index in range(3)]


def test_samples_left_beside_their_packed_window_are_removed(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    with chosen.windows() as windows:
        windows.sample(SILENT)
    left = (chosen.folder / "window-0001.sample").read_bytes()
    _prepare(chosen)
    (chosen.folder / "window-0001.sample").write_bytes(left)
    _prepare(chosen)
    assert _names(chosen) == [f"window-000{index}.pack" for index in range(3)]


def test_more_epochs_do_not_make_frozen_windows_again(make: Callable[..., Scene]) -> None:
    _prepare(make(samples="frozen", epochs=2))
    assert _prepare(make(samples="frozen", epochs=9)) == {"sample": 0, "pack": 0}


def test_the_first_epoch_of_fresh_samples_may_use_frozen_windows(make: Callable[..., Scene]) -> None:
    frozen = make(samples="frozen", window_batches=7)
    _prepare(frozen)
    before = _stamps(frozen)
    with make(window_batches=7).windows() as windows:
        windows.prepare(SILENT)
    assert _stamps(frozen)["window-0000.pack"] == before["window-0000.pack"]


@pytest.mark.parametrize(
    "changed", [{"window_batches": 2}, {"num_slots": 9}, {"codec": "float16"}, {"mode": "cached"}, {"mode": "direct"}]
)
def test_another_layout_of_the_same_batches_is_made_again_without_a_word(
    make: Callable[..., Scene], changed: dict[str, Any]
) -> None:
    _prepare(make(samples="frozen"))
    chosen = make(samples="frozen", **changed)
    _prepare(chosen)
    assert len(_names(chosen)) == chosen.plan.num_windows
    assert same_runs(chosen.batches(), chosen.batches())


def test_windows_of_other_batches_are_refused_by_name(make: Callable[..., Scene]) -> None:
    _prepare(make(samples="frozen"))
    other = make(samples="frozen", seed=1)
    with pytest.raises(StaleArtefactError, match=r"window-0000\.pack holds batches of .* --overwrite"):
        _prepare(other)
    with pytest.raises(StaleArtefactError, match=r"window-0000\.pack"):
        other.batches()


def test_windows_of_another_store_are_refused_by_name(make: Callable[..., Scene], tmp_path: Path) -> None:
    _prepare(make(samples="frozen"))
    other = scene(tiny_store(tmp_path, seed=1), tmp_path / "run", samples="frozen")
    with pytest.raises(StaleArtefactError, match=r"window-0000\.pack holds batches of another store"):
        _prepare(other)


def test_overwriting_makes_refused_windows_again(make: Callable[..., Scene]) -> None:
    _prepare(make(samples="frozen"))
    other = make(samples="frozen", seed=1)
    assert _prepare(other, overwrite=True) == {"sample": 3, "pack": 3}
    assert _prepare(other) == {"sample": 0, "pack": 0}


def test_a_corrupt_header_is_named(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    _prepare(chosen)
    with (chosen.folder / "window-0001.pack").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff")
    with pytest.raises(CorruptError, match=r"window-0001\.pack: the header is corrupt"):
        _prepare(chosen)


@pytest.mark.parametrize("mode", ["packed", "direct"])
def test_fresh_windows_never_number_more_than_two_and_vanish(make: Callable[..., Scene], mode: str) -> None:
    chosen = make(mode=mode, epochs=4)
    kind = "pack" if mode == "packed" else "sample"
    with (
        chosen.windows() as windows,
        closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader,
        Loader(windows, chosen.features, reader) as loader,
    ):
        for _ in loader:
            assert sum(path.suffix == f".{kind}" for path in chosen.folder.iterdir()) <= 2
    assert _names(chosen) == []


def test_preparing_fresh_samples_makes_the_first_window_only(make: Callable[..., Scene]) -> None:
    chosen = make()
    assert _prepare(chosen) == {"sample": 1, "pack": 1}
    assert _names(chosen) == ["window-0000.pack"]


def test_a_fresh_run_that_starts_late_removes_what_it_does_not_need(make: Callable[..., Scene]) -> None:
    chosen = make()
    _prepare(chosen)
    with chosen.windows() as windows:
        windows.begin(2)
        assert windows.open(2, threading.Event()) is not None
    assert "window-0000.pack" not in _names(chosen)


def test_starting_again_leaves_alone_what_a_forgotten_window_is_made_from(make: Callable[..., Scene]) -> None:
    chosen = make(epochs=100, window_batches=1000, batch_size=1)
    with chosen.windows() as windows:
        windows.begin(3)
        producer = one_producer()
        while not any(chosen.folder.glob(".window-0003.*.partial")):
            time.sleep(0.001)
        producer.suspend()
        before = _names(chosen)
        windows.begin(1)  # forgets window 3, which is being made
        assert _names(chosen) == before
        producer.resume()
        assert windows.open(1, threading.Event()) is not None


def test_windows_that_are_there_need_no_producer(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    with chosen.windows() as windows:
        windows.prepare(SILENT)
        windows.begin(0)
        assert windows.open(2, threading.Event()) is not None
        assert producers() == []


def test_what_the_producer_did_is_counted(make: Callable[..., Scene]) -> None:
    with make().windows() as windows:
        windows.begin(0)
        assert windows.open(1, threading.Event()) is not None
        reports = windows.reports
        assert [report.details["windows"] for report in reports.values()] == [2, 2]
        assert all(report.seconds > 0 and report.useful_bytes > 0 for report in reports.values())


def test_each_window_starts_with_the_cache_that_the_one_before_left(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    _prepare(chosen)
    opened = [Window.open(chosen.folder / f"window-000{index}.pack", None) for index in range(3)]
    for before, after in pairwise(opened):
        assert (after.initial_slots() == before.final_slots()).all()
        assert (after.initial_slots() >= 0).any()


def test_the_first_of_fresh_windows_starts_with_an_empty_cache(make: Callable[..., Scene]) -> None:
    chosen = make(samples="fresh")
    _prepare(chosen)
    window = Window.open(chosen.folder / "window-0000.pack", None)
    assert (window.initial_slots() == -1).all()
    assert window.header.num_initial_rows == 0


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_the_first_of_frozen_windows_brings_the_rows_that_an_epoch_starts_with(
    make: Callable[..., Scene], codec: str
) -> None:
    chosen = make(samples="frozen", codec=codec)
    _prepare(chosen)
    window = Window.open(chosen.folder / "window-0000.pack", None)
    node = np.sort(window.initial_slots()[window.initial_slots() >= 0])
    assert node.size > 0
    assert np.isin(node, np.concatenate([window.nodes(index) for index in range(2)])).all()  # it looks two ahead
    rows = np.concatenate([part.copy() for part in window.initial_rows(1)])
    x = next(iter(chosen.features.blocks(1 << 20)))[1]
    assert np.array_equal(rows, encode(x[node], codec))
    last = Window.open(chosen.folder / "window-0002.pack", None).final_slots()
    assert np.isin(node, last).mean() > 0.8


def test_modes_without_rows_in_their_windows_keep_no_initial_rows(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen", mode="cached")
    _prepare(chosen)
    window = Window.open(chosen.folder / "window-0000.pack", None)
    assert (window.initial_slots() >= 0).any()
    assert window.header.num_initial_rows == 0


def test_waiting_for_a_window_can_be_called_off(make: Callable[..., Scene]) -> None:
    chosen, stop = make(), threading.Event()
    stop.set()
    with chosen.windows() as windows:
        assert windows.open(0, stop) is None


def test_closing_calls_the_producer_off_and_leaves_no_half_window(make: Callable[..., Scene]) -> None:
    chosen = make(epochs=2000, window_batches=7000, batch_size=1)
    before = set(threading.enumerate())
    windows = chosen.windows()
    windows.begin(0)
    while not chosen.folder.exists():
        threading.Event().wait(0.01)
    windows.close()
    assert not [name for name in _names(chosen) if name.endswith(".partial")]
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("graphsys-")]
    assert producers() == []
    with pytest.raises(ValueError, match="are closed"):
        windows.begin(0)


def test_what_the_windows_occupy_is_counted(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    with chosen.windows() as windows:
        assert windows.nbytes == 0
        windows.prepare(SILENT)
        assert windows.nbytes == sum(path.stat().st_size for path in chosen.folder.iterdir())
        assert windows.reports["sample"].useful_bytes > 0
        assert windows.reports["pack"].useful_bytes % 4 == 0
        assert windows.reports["pack"].seconds > 0


def test_two_splits_do_not_meet(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    other = replace(chosen, split="val")
    _prepare(chosen)
    before = _stamps(chosen)
    _prepare(other)
    assert _stamps(chosen) == before
    assert chosen.folder != other.folder
