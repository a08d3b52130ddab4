import errno
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.reference_sampler import reference_sample, same_batch
from helpers.topologies import random_topology, with_weights

from graphsys.core.errors import DiskError, MemoryBudgetError
from graphsys.core.types import Array, Topology
from graphsys.samplers.offline import sample_window
from graphsys.samplers.schedule import Schedule
from graphsys.storage.window import Window

GRAPH = random_topology(3000, 40_000, seed=1)
SCHEDULE = Schedule(nodes=np.arange(0, 3000, 3), batch_size=64, seed=9, epochs=2, samples="fresh")
FANOUTS = (4, 3)


class Counter:
    """A progress task that counts."""

    def __init__(self) -> None:
        self.done = 0.0

    def advance(self, amount: float = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        raise AssertionError(text)


def write(
    path: Path,
    positions: range = range(10, 25),
    *,
    threads: int = 2,
    memory: int = 1 << 30,
    labels: Array | None = None,
    topology: Topology = GRAPH,
    replace: bool = False,
    weighted: bool = False,
    task: Counter | None = None,
) -> Window:
    sample_window(
        topology,
        SCHEDULE,
        positions,
        path,
        fanouts=FANOUTS,
        replace=replace,
        weighted=weighted,
        with_degree=True,
        labels=labels,
        threads=threads,
        fingerprint="f" * 32,
        window_index=1,
        memory=memory,
        task=task,
    )
    return Window.open(path, "f" * 32)


def test_a_window_holds_the_batches_of_its_positions_in_order(tmp_path: Path) -> None:
    window = write(tmp_path / "w.sample")
    assert [entry.position for entry in window.entries] == list(range(10, 25))
    for index, position in enumerate(range(10, 25)):
        seeds, key = SCHEDULE.seeds(position).node, SCHEDULE.key(position)
        expected = reference_sample(GRAPH, seeds, FANOUTS, key=key, with_degree=True)
        assert same_batch(window.read(index).sampled, expected)
    window.verify()


@pytest.mark.parametrize(("replace", "weighted"), [(True, False), (False, True), (True, True)])
def test_edges_are_drawn_as_asked(tmp_path: Path, replace: bool, weighted: bool) -> None:
    topology = with_weights(GRAPH, np.random.default_rng(0).random(GRAPH.num_edges))
    window = write(tmp_path / "w.sample", range(3), topology=topology, replace=replace, weighted=weighted)
    for position in range(3):
        seeds, key = SCHEDULE.seeds(position).node, SCHEDULE.key(position)
        expected = reference_sample(
            topology, seeds, FANOUTS, key=key, replace=replace, weighted=weighted, with_degree=True
        )
        assert same_batch(window.read(position).sampled, expected)


def test_the_file_depends_on_neither_threads_nor_memory(tmp_path: Path) -> None:
    first = write(tmp_path / "a", threads=1).path.read_bytes()
    assert write(tmp_path / "b", threads=2).path.read_bytes() == first
    assert write(tmp_path / "c", threads=0).path.read_bytes() == first
    assert write(tmp_path / "d", threads=2, memory=200_000).path.read_bytes() == first


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(3000),
        np.arange(3000, dtype=np.float32),
        np.arange(6000, dtype=np.float32).reshape(3000, 2),
        (np.arange(9000) % 2).astype(np.uint8).reshape(3000, 3),
    ],
)
def test_labels_are_those_of_the_seeds(tmp_path: Path, labels: Array) -> None:
    window = write(tmp_path / "w.sample", range(2), labels=labels)
    for position in range(2):
        y = window.read(position).y
        assert y is not None
        assert y.dtype == labels.dtype
        assert np.array_equal(y, labels[SCHEDULE.seeds(position).node])


def test_every_batch_is_reported_as_progress(tmp_path: Path) -> None:
    task = Counter()
    write(tmp_path / "w.sample", task=task)
    assert task.done == 15


def test_a_budget_too_small_for_one_batch_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match=r"lower sampler.batch_size or sampler.fanouts, or raise memory"):
        write(tmp_path / "w.sample", memory=10_000)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_stops_all_threads_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(range(3))

    def allocate(fd: int, offset: int, length: int) -> None:  # noqa: ARG001 - the system call's signature
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", allocate)
    with pytest.raises(DiskError, match="the disk is full"):
        write(tmp_path / "w.sample")
    assert os.listdir(tmp_path) == []
