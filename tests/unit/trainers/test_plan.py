import os
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.topologies import topology_of
from helpers.trained import make_run

from graphsys.core.errors import ConfigError, MemoryBudgetError
from graphsys.core.types import Array
from graphsys.core.units import GIB, KIB, MIB
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.samplers.schedule import Schedule
from graphsys.storage.codec import row_nbytes
from graphsys.storage.files import drop_cache
from graphsys.storage.residency import plan_residency
from graphsys.storage.store import Store
from graphsys.trainers import pilot as pilot_module
from graphsys.trainers.choice import choose_pack
from graphsys.trainers.pilot import run_pilot
from graphsys.trainers.plan import PackPlan, resolve_pack

NODES, EDGES, DIM = 6000, 48_000, 256
FEATURES = NODES * DIM * 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("plan")
    return Store.open(tiny_store(folder, num_nodes=NODES, num_edges=EDGES, num_features=DIM))


def plan(
    store: Store,
    *,
    memory: int | str = "64MiB",
    samples: Literal["fresh", "frozen"] = "fresh",
    batch_size: int = 16,
    epochs: int = 2,
    **pack: Any,
) -> PackPlan:
    sampler = {"fanouts": [4, 4], "batch_size": batch_size, "samples": samples}
    trainer = {"epochs": epochs, "threads": 1, "device": "cpu"}
    run = make_run(store.path, Path("out"), memory=memory, sampler=sampler, trainer=trainer, pack=pack)
    nodes = store.split("node", "train")
    schedule = Schedule(nodes=nodes, batch_size=batch_size, seed=0, epochs=epochs, samples=samples)
    topology = store.topology(store.edge_type_within("node"))
    return choose_pack(run, store, schedule, topology, run_pilot(run, schedule, topology))


def test_the_same_run_has_the_same_plan(store: Store) -> None:
    assert plan(store, mode="packed") == plan(store, mode="packed")


def test_small_runs_get_one_window_over_all_epochs(store: Store) -> None:
    found = plan(store, memory="256MiB", batch_size=4000, epochs=200)
    assert (found.window_batches, found.num_windows) == (200, 1)


def test_frozen_samples_have_the_batches_of_one_epoch(store: Store) -> None:
    found = plan(store, samples="frozen", epochs=50)
    assert found.window_batches * found.num_windows >= 188 > found.window_batches * (found.num_windows - 1)


@pytest.mark.parametrize("epochs", [2, 3])
def test_a_window_never_holds_more_than_a_thousand_batches(store: Store, epochs: int) -> None:
    assert plan(store, batch_size=8, epochs=epochs).window_batches == min(375 * epochs, 1000)


def test_planning_a_window_keeps_to_about_a_third_of_the_memory(store: Store) -> None:
    small, large = (plan(store, memory=size, mode="packed", epochs=50) for size in (8 * MIB, 12 * MIB))
    assert small.window_batches < large.window_batches
    assert small.cache_bytes + small.working_bytes + small.producer_bytes == 8 * MIB


def test_the_cache_is_a_share_of_the_features_or_a_size(store: Store) -> None:
    assert plan(store, mode="packed", host_cache="20%").num_slots == NODES // 5
    assert plan(store, mode="packed", host_cache="0%").num_slots == 0
    assert plan(store, mode="packed", host_cache="64KiB").num_slots == 64 * KIB // (DIM * 4)
    assert plan(store, mode="packed", host_cache="1GiB").num_slots == NODES


def test_rows_of_a_slot_are_padded_as_the_codec_pads_them(tmp_path: Path) -> None:
    narrow = Store.open(tiny_store(tmp_path, num_features=3))
    found = plan(narrow, mode="cached", host_cache="1280B")
    width = row_nbytes(3, "float32")
    assert (found.row_nbytes, found.num_slots) == (width, 1280 // width)


def test_a_share_gives_way_to_the_memory_budget_and_says_so(store: Store) -> None:
    found = plan(store, memory=8 * MIB, mode="packed", host_cache="80%")
    assert found.num_slots < NODES * 0.8
    assert found.notes
    assert "host_cache 80% is 4.69 MiB; the memory budget of 8.00 MiB leaves" in found.notes[0]


def test_a_size_of_the_cache_does_not_give_way(store: Store) -> None:
    with pytest.raises(MemoryBudgetError, match=r"set memory to at least \d+MiB, or lower pack.host_cache"):
        plan(store, memory=8 * MIB, mode="packed", host_cache="6MiB")


def test_memory_mode_that_does_not_fit_is_refused(store: Store) -> None:
    with pytest.raises(MemoryBudgetError, match=r"mode memory takes .*choose pack.mode: auto"):
        plan(store, memory=6 * MIB, mode="memory")


def test_a_budget_below_one_batch_names_what_would_do(store: Store) -> None:
    with pytest.raises(MemoryBudgetError, match=r"set memory to at least \d+MiB, or lower sampler.batch_size"):
        plan(store, memory=64 * KIB)


def test_what_a_refusal_names_does(store: Store) -> None:
    with pytest.raises(MemoryBudgetError) as refusal:
        plan(store, memory=64 * KIB, batch_size=1000)
    named = str(refusal.value).split("set memory to at least ")[1].split(",")[0]
    assert plan(store, memory=named, batch_size=1000).window_batches >= 1


def test_frozen_windows_beyond_the_disk_budget_are_refused_with_the_size_needed(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"with frozen samples take about .* raise pack.disk to \d+MiB"):
        plan(store, samples="frozen", mode="packed", disk="100KiB")


def test_a_refusal_names_the_whole_disk_budget_and_what_would_do(store: Store) -> None:
    run = make_run(store.path, Path("out"), pack={"mode": "packed", "disk": "1MiB"}, sampler={
        "fanouts": [4, 4], "batch_size": 16, "samples": "frozen"})  # fmt: skip
    schedule = Schedule(nodes=store.split("node", "train"), batch_size=16, seed=0, epochs=2, samples="frozen")
    with pytest.raises(ConfigError, match=r"pack.disk is 1\.00 MiB, of which 512 KiB are left for them; raise"):
        resolve_pack(run, store, schedule, store.topology(store.edge_type_within("node")), disk=512 * KIB)


def test_fresh_windows_shrink_to_the_disk_budget(store: Store) -> None:
    wide = plan(store, mode="packed", memory="64MiB", epochs=50)
    tight = plan(store, mode="packed", memory="64MiB", epochs=50, disk=wide.disk_bytes // 4)
    assert tight.window_batches < wide.window_batches
    assert tight.disk_bytes <= wide.disk_bytes // 4


def test_a_window_of_chosen_size_is_kept_or_refused(store: Store) -> None:
    assert plan(store, mode="packed", window=7).window_batches == 7
    with pytest.raises(MemoryBudgetError, match=r"window of 376 batches .* lower pack.window to \d+, set it to auto"):
        plan(store, mode="packed", window=376, memory=6 * MIB)


def test_the_plan_is_plain_json(store: Store) -> None:
    values = plan(store, mode="packed").as_dict()
    assert values["mode"] == "packed"
    assert isinstance(values["notes"], list)


def test_a_pilot_measures_batches_of_the_schedule(store: Store) -> None:
    run = make_run(store.path, Path("out"), sampler={"fanouts": [4, 4], "batch_size": 32})
    schedule = Schedule(nodes=store.split("node", "train"), batch_size=32, seed=0, epochs=2, samples="fresh")
    pilot = run_pilot(run, schedule, store.topology(store.edge_type_within("node")))
    assert sum(pilot.frequencies) == pytest.approx(1)
    assert pilot.seconds_per_batch > 0
    assert 32 <= pilot.mean_expanded < pilot.mean_nodes
    assert 32 < pilot.mean_nodes <= pilot.max_nodes <= NODES
    assert pilot.mean_edges <= 32 * 4 * 5 < GIB


def test_a_pilot_with_replacement_expects_more_edges_than_the_graph_has_where_batches_have_them() -> None:
    ring = topology_of(np.arange(100), np.roll(np.arange(100), 1), 100)
    run = make_run(Path("ring.gs"), Path("out"), sampler={"fanouts": [50], "batch_size": 100, "replace": True})
    schedule = Schedule(nodes=np.arange(100), batch_size=100, seed=0, epochs=1, samples="fresh")
    assert run_pilot(run, schedule, ring).max_edges >= 5000


@pytest.mark.parametrize("share", ["5%", "20%", "60%"])
def test_a_pilot_foretells_the_rows_that_windows_fetch(store: Store, share: str) -> None:
    sampler = {"fanouts": [4, 4], "batch_size": 32}
    run = make_run(store.path, Path("out"), sampler=sampler, pack={"mode": "packed", "host_cache": share})
    schedule = Schedule(nodes=store.split("node", "train"), batch_size=32, seed=0, epochs=1, samples="fresh")
    topology = store.topology(store.edge_type_within("node"))
    slots = resolve_pack(run, store, schedule, topology).num_slots
    held, fetched, pilot = np.full(slots, -1, np.int64), 0, run_pilot(run, schedule, topology)
    ahead = pilot.look_ahead(slots, window=20)
    trace = [
        sample_neighbors(topology, schedule.seeds(at).node, [4, 4], key=schedule.key(at)).node
        for at in range(schedule.num_batches)
    ]
    for start in range(0, schedule.num_batches, 20):
        stop = start + 20
        found = plan_residency(trace[start:stop], slots, held, trace[stop : stop + ahead])
        held, fetched = found.final_slot_node, fetched + sum(len(batch.fetch_node) for batch in found.batches)
    foretold = pilot.fetched_rows(slots, window=20, num_batches=schedule.num_batches)
    assert foretold == pytest.approx(fetched, rel=0.1)


def test_a_pilot_batch_beyond_the_budget_is_refused_before_it_is_sampled(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot_module, "_LEAST_MEMORY", 0)
    run = make_run(store.path, Path("out"), memory="64KiB", sampler={"fanouts": [-1, -1], "batch_size": 512})
    schedule = Schedule(nodes=store.split("node", "train"), batch_size=512, seed=0, epochs=1, samples="fresh")
    with pytest.raises(MemoryBudgetError, match=r"batch 0 of epoch 0 .*are left for it"):
        run_pilot(run, schedule, store.topology(store.edge_type_within("node")))


def test_a_pilot_is_the_same_when_edges_that_do_not_fit_are_read_by_groups(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot_module, "_LEAST_MEMORY", 0)
    schedule = Schedule(nodes=store.split("node", "train"), batch_size=1000, seed=0, epochs=2, samples="fresh")
    topology = store.topology(store.edge_type_within("node"))
    unmapped = replace(topology, indices=np.zeros_like(topology.indices))  # other edges than the file has
    found = []
    for memory, shown in (("64MiB", topology), ("1200KiB", unmapped)):
        run = make_run(store.path, Path("out"), memory=memory, sampler={"fanouts": [4, 4], "batch_size": 1000})
        found.append(replace(run_pilot(run, schedule, shown), seconds_per_batch=0.0, read_bytes=0))
    assert found[0] == found[1]


@pytest.mark.parametrize("epochs", range(1, 16))
def test_a_short_last_batch_never_makes_the_pilot_take_batches_for_small(store: Store, epochs: int) -> None:
    nodes = store.split("node", "train")
    batch_size = nodes.shape[0] // 4 - 10  # four full batches and one of a few nodes
    sampler = {"fanouts": [4, 4], "batch_size": batch_size}
    run = make_run(store.path, Path("out"), memory="64MiB", sampler=sampler, trainer={"epochs": epochs}, pack={})
    schedule = Schedule(nodes=nodes, batch_size=batch_size, seed=0, epochs=epochs, samples="fresh")
    pilot = run_pilot(run, schedule, store.topology(store.edge_type_within("node")))
    assert schedule.batches_per_epoch == 5
    assert pilot.mean_nodes > 0.95 * pilot.max_nodes / 1.15


@pytest.mark.parametrize(("fanouts", "batch_size", "whole"), [([4, 4], 32, True), ([-1], 1, False)])
def test_a_pilot_that_looks_at_much_of_the_topology_reads_it_front_to_back(
    tmp_path: Path, fanouts: list[int], batch_size: int, *, whole: bool
) -> None:
    large = Store.open(tiny_store(tmp_path, num_nodes=300_000, num_edges=1_500_000, num_features=1))
    run = make_run(large.path, Path("out"), memory="64MiB", sampler={"fanouts": fanouts, "batch_size": batch_size})
    nodes = large.split("node", "train")
    schedule = Schedule(nodes=nodes, batch_size=batch_size, seed=0, epochs=1, samples="fresh")
    name = large.edge_type_within("node")
    for path in large.path.rglob("topology/**/c/*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            drop_cache(file.fileno())
    if not _faults(large.topology(name).indices[-1:]):
        pytest.skip("this file system keeps its pages in memory")
    run_pilot(run, schedule, large.topology(name))
    assert (_faults(large.topology(name).indices) == 0) == whole


def _faults(array: Array) -> int:
    """Return how many pages had to be waited for while the array was read."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
    array.sum()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt - before
