"""Faults behind a loader: they reach the consumer as one error, and no thread outlives them."""

import os
import resource
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.loading import MEMORY, Scene, same, scene

from graphsys.core.errors import CorruptError, DiskError, GraphsysError, MemoryBudgetError
from graphsys.core.progress import SILENT
from graphsys.storage.window import Window
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.loader import Loader
from graphsys.trainers.rows import open_reader


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Scene]:
    store = tiny_store(tmp_path)

    def make_scene(**options: Any) -> Scene:
        return scene(store, tmp_path / "run", **options)

    return make_scene


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    new = set(threading.enumerate()) - before
    assert [thread.name for thread in new if thread.name.startswith("graphsys-")] == []


def _take(batches: Iterable[MiniBatch], found: list[MiniBatch]) -> None:
    for batch in batches:
        found.append(batch)  # noqa: PERF402 - what came before an error is wanted too


def _until_error(chosen: Scene, error: type[GraphsysError], match: str) -> list[MiniBatch]:
    """Iterate until ``error`` is raised; return the batches that came before it."""
    found: list[MiniBatch] = []
    with chosen.windows() as windows, closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader:
        loader = Loader(windows, chosen.features, reader)
        with pytest.raises(error, match=match):
            _take(loader, found)
    return found


def _flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        value = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([value ^ 1]))


@pytest.mark.parametrize("mode", ["packed", "cached", "direct", "memory"])
def test_a_flipped_byte_in_a_batch_is_raised_where_the_batch_would_have_come(
    make: Callable[..., Scene], mode: str
) -> None:
    chosen = make(mode=mode, samples="frozen")
    expected = chosen.batches()
    path = sorted(chosen.folder.iterdir())[1]
    entry = Window.open(path, None).entries[1]
    for offset in np.random.default_rng(0).integers(entry.offset, entry.offset + entry.nbytes, 5):
        _flip(path, int(offset))
        found = _until_error(chosen, CorruptError, rf"{path.name}: batch 1 is corrupt")
        assert len(found) == 4
        assert all(map(same, found, expected))
        _flip(path, int(offset))


@pytest.mark.parametrize("mode", ["packed", "cached", "direct"])
def test_a_feature_file_that_shrinks_during_a_run_is_named(make: Callable[..., Scene], mode: str) -> None:
    chosen = make(mode=mode)
    features, found = chosen.features, list[MiniBatch]()
    with chosen.windows() as windows, closing(open_reader(features, chosen.plan, memory=MEMORY)) as reader:
        windows.prepare(SILENT)
        loader = Loader(windows, features, reader)
        os.truncate(features.path, 500)
        with pytest.raises(CorruptError, match="truncated"):
            _take(loader, found)
    # The first window was packed before; its batches arrive although the thread that makes the next one failed.
    assert len(found) == (3 if mode == "packed" else 0)


def test_a_refused_write_of_the_producer_is_raised_after_the_batches_that_were_made(make: Callable[..., Scene]) -> None:
    chosen, found = make(), list[MiniBatch]()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with chosen.windows() as windows, closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader:
        windows.prepare(SILENT)
        loader = Loader(windows, chosen.features, reader)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # Python ignores the signal: writes fail
        try:
            with pytest.raises(DiskError, match=r"cannot write .*window-0001\.sample"):
                _take(loader, found)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(found) == 3
    assert list(chosen.folder.iterdir()) == []


def test_a_plan_with_too_little_memory_is_refused_by_the_stage_that_needs_it(make: Callable[..., Scene]) -> None:
    chosen = make()
    chosen = replace(chosen, plan=replace(chosen.plan, producer_bytes=1 << 20))
    assert _until_error(chosen, MemoryBudgetError, r"pack\.window") == []


def test_a_run_can_go_on_after_the_fault_is_mended(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen")
    expected = chosen.batches()
    path = sorted(chosen.folder.iterdir())[1]
    _flip(path, 5000)
    _until_error(chosen, CorruptError, "Remove the file; the run makes it again")
    path.unlink()
    assert all(map(same, chosen.batches(), expected))
