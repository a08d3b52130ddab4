"""Which mode a run that leaves it open trains in, on disks of known speed."""

from pathlib import Path
from typing import Any, Literal

import pytest
from helpers.graphs import tiny_store
from helpers.trained import make_run

import graphsys
from graphsys.core.errors import MemoryBudgetError
from graphsys.core.units import KIB, MIB
from graphsys.samplers.schedule import Schedule
from graphsys.storage.disk_speed import cache_file
from graphsys.storage.files import write_bytes
from graphsys.storage.manifest import sealed_json
from graphsys.storage.store import Store
from graphsys.trainers.choice import choose_pack
from graphsys.trainers.pilot import run_pilot
from graphsys.trainers.plan import PackPlan

NODES, DIM = 6000, 256
PLATTER, FLASH = 1e2, 1e6  # random reads a second


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("choice")
    return Store.open(tiny_store(folder, num_nodes=NODES, num_edges=48_000, num_features=DIM))


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder on a disk that is known not to like small reads."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remember(tmp_path, random_reads_s=PLATTER)
    return tmp_path / "run"


def remember(folder: Path, *, random_reads_s: float) -> None:
    """Leave what an earlier measurement of the disk would have left."""
    device, today = folder.stat().st_dev, "2999-01-01"
    disk = {"read_bytes_s": 1e9, "write_bytes_s": 1e9, "random_reads_s": random_reads_s, "measured": today}
    engine = {"plan_access_s": 1e-7, "pack_bytes_s": 1e9, "version": graphsys.__version__, "measured": today}
    for what, values in (("disk", disk), ("engine", engine)):
        path = cache_file(what, device)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, sealed_json(values))


def choose(
    store: Store,
    out: Path,
    *,
    memory: int = 8 * MIB,
    samples: Literal["fresh", "frozen"] = "frozen",
    epochs: int = 2,
    batch_size: int = 16,
    **pack: Any,
) -> PackPlan:
    sampler = {"fanouts": [4, 4], "batch_size": batch_size, "samples": samples}
    trainer = {"epochs": epochs, "threads": 1, "device": "cpu"}
    run = make_run(store.path, out, memory=memory, sampler=sampler, trainer=trainer, pack={"mode": "auto", **pack})
    schedule = Schedule(
        nodes=store.split("node", "train"), batch_size=batch_size, seed=0, epochs=epochs, samples=samples
    )
    topology = store.topology(store.edge_type_within("node"))
    return choose_pack(run, store, schedule, topology, run_pilot(run, schedule, topology))


def test_a_graph_that_fits_is_held_in_memory(store: Store, out: Path) -> None:
    found = choose(store, out, memory=64 * MIB)
    assert (found.mode, found.num_slots) == ("memory", 0)
    assert "of the memory budget" in found.reason


def test_a_disk_that_does_not_like_small_reads_is_read_in_windows_and_the_reason_says_what_the_others_cost(
    store: Store, out: Path
) -> None:
    found = choose(store, out)
    assert found.mode == "packed"
    assert "more than the memory budget holds; packing and reading rows takes the disk about" in found.reason
    assert found.reason.index(" packed, ") < found.reason.index(" cached") < found.reason.index(" direct")


def test_few_batches_on_a_disk_that_likes_small_reads_are_not_worth_a_scan(store: Store, out: Path) -> None:
    remember(out.parent, random_reads_s=FLASH)
    assert choose(store, out, epochs=1, window=1, samples="fresh").mode in ("cached", "direct")


def test_more_epochs_of_frozen_samples_make_packing_worth_it(store: Store, out: Path) -> None:
    remember(out.parent, random_reads_s=3e4)
    modes = [choose(store, out, epochs=epochs, host_cache="0%").mode for epochs in (1, 100)]
    assert modes[-1] == "packed"


def test_rows_are_read_from_the_store_when_the_disk_is_too_small_to_pack(store: Store, out: Path) -> None:
    packed = choose(store, out)
    cached = choose(store, out, disk=packed.disk_bytes // 2)
    assert (packed.mode, cached.mode) == ("packed", "cached")
    assert "packed is not possible: windows in mode packed" in cached.reason
    assert "pack.disk is" in cached.reason
    assert choose(store, out, disk=packed.disk_bytes // 4, host_cache="0%").mode == "direct"


def test_a_mode_that_is_named_is_taken(store: Store, out: Path) -> None:
    found = choose(store, out, mode="direct")
    assert (found.mode, found.reason) == ("direct", "pack.mode is direct")


def test_a_budget_that_no_mode_fits_is_refused_with_one_that_works(store: Store, out: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="set memory to at least"):
        choose(store, out, memory=64 * KIB)
