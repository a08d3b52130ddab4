from pathlib import Path
from typing import Any

import pytest
from helpers.graphs import tiny_store
from helpers.training import run_config

from graphsys.core.config import RunConfig
from graphsys.core.errors import MemoryBudgetError
from graphsys.storage.store import Store
from graphsys.trainers.budget import plan_run, train_schedule, val_schedule
from graphsys.trainers.checkpoint import list_checkpoints
from graphsys.trainers.fit import fit
from graphsys.trainers.run_plans import RunPlans


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tiny_store(tmp_path_factory.mktemp("store"), num_features=64))


def plans(store: Store, run: RunConfig) -> RunPlans:
    train, val = (store.split("node", name) for name in ("train", "val"))
    topology = store.topology(store.edge_type_within("node"))
    return plan_run(run, store, topology, train_schedule(run, train), val_schedule(run, val))


def budget_run(store: Store, out: Path, memory: int | str, **pack: Any) -> RunConfig:
    return run_config(store.path, out, memory=memory, pack={"mode": "direct", **pack})


def tight_memory(store: Store, out: Path) -> int:
    """Return a budget that holds the open batches of training or those of validation, but not both."""
    found = plans(store, budget_run(store, out, "64MiB"))
    assert found.val is not None
    return found.train.working_bytes + found.val.working_bytes // 2


@pytest.mark.parametrize("mode", ["memory", "direct", "cached", "packed"])
def test_validation_takes_the_mode_of_training_and_both_are_open_where_memory_allows(
    store: Store, tmp_path: Path, mode: str
) -> None:
    found = plans(store, budget_run(store, tmp_path, "64MiB", mode=mode))
    assert found.val is not None
    assert (found.train.mode, found.val.mode) == (mode, mode)
    assert found.together


def test_all_that_is_open_at_one_time_fits_the_memory_budget(store: Store, tmp_path: Path) -> None:
    run = budget_run(store, tmp_path, "64MiB", mode="packed")
    found = plans(store, run)
    assert found.val is not None
    open_bytes = sum(plan.working_bytes + plan.cache_bytes for plan in (found.train, found.val))
    assert open_bytes + found.train.producer_bytes <= run.memory


def test_a_tight_budget_opens_validation_instead_of_training(store: Store, tmp_path: Path) -> None:
    memory = tight_memory(store, tmp_path)
    found = plans(store, budget_run(store, tmp_path, memory))
    assert not found.together
    assert found.train.working_bytes + found.train.producer_bytes <= memory


def test_a_run_in_a_tight_budget_ends_with_the_same_bytes(store: Store, tmp_path: Path) -> None:
    states = []
    for memory in ("64MiB", tight_memory(store, tmp_path)):
        run = budget_run(store, tmp_path / str(memory), memory)
        fit(run)
        states.append((list_checkpoints(run.out / "checkpoints")[-1] / "state.pt").read_bytes())
    assert states[0] == states[1]


def test_validation_reads_rows_directly_where_its_windows_do_not_fit_the_disk_budget(
    store: Store, tmp_path: Path
) -> None:
    whole = plans(store, budget_run(store, tmp_path, "64MiB", mode="packed", host_cache=0, window=1))
    assert whole.val is not None
    disk = whole.train.disk_bytes + whole.val.disk_bytes  # half of it is validation's at most
    found = plans(store, budget_run(store, tmp_path, "64MiB", mode="packed", host_cache=0, window=1, disk=disk))
    assert found.val is not None
    assert (found.train.mode, found.val.mode) == ("packed", "direct")


def test_without_validation_nodes_training_has_the_whole_budget(store: Store, tmp_path: Path) -> None:
    run = budget_run(store, tmp_path, "64MiB")
    topology = store.topology(store.edge_type_within("node"))
    found = plan_run(run, store, topology, train_schedule(run, store.split("node", "train")), None)
    assert found.val is None
    assert found.train.working_bytes + found.train.producer_bytes == run.memory


def test_a_budget_too_small_for_any_batch_is_refused_with_one_that_works(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MemoryBudgetError, match="set memory to at least"):
        plans(store, budget_run(store, tmp_path, 20_000))


@pytest.mark.parametrize("mode", ["direct", "cached", "packed"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_what_a_refusal_names_does_with_validation_beside_training(
    store: Store, tmp_path: Path, mode: str, share: float
) -> None:
    enough = plans(store, budget_run(store, tmp_path, "64MiB", mode=mode)).train
    memory: int | str = int(share * (enough.working_bytes + enough.cache_bytes))
    for _ in range(2):  # a first answer may come from training alone, which then leaves too little for validation
        try:
            plans(store, budget_run(store, tmp_path, memory, mode=mode))
        except MemoryBudgetError as refusal:
            memory = str(refusal).split("set memory to at least ")[1].split(",")[0]
    assert plans(store, budget_run(store, tmp_path, memory, mode=mode)).train.window_batches >= 1
