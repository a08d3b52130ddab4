"""Training by several processes over gloo, without Ray."""

import statistics
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.gang import Gang, Job
from helpers.graphs import MEMORY, tiny_store
from helpers.public_data import public_graph
from helpers.training import run_config
from helpers.watching import seen

from graphsys.core.config import RunConfig
from graphsys.core.types import LoaderCursor
from graphsys.core.units import MIB
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec
from graphsys.storage.store import Store
from graphsys.trainers.budget import train_schedule
from graphsys.trainers.checkpoint import Checkpoint, final_checkpoint, latest_checkpoint, load_checkpoint
from graphsys.trainers.demo_data import digits_source
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.logs import read_log
from graphsys.trainers.outcome import read_outcome
from graphsys.trainers.run_folder import RunFolder

Seen = dict[tuple[int, int], list[list[int]]]
EPOCHS = 40  # on Cora
NUM_BATCHES = 7  # of 16 of the 100 training nodes


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def gang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    with closing(Gang(tmp_path_factory.mktemp("gang"))) as started:
        yield started


def watched(store: Path, out: Path, **trainer: Any) -> RunConfig:
    """Return a run whose network writes down its batches into ``out``-seen."""
    folder = out.parent / f"{out.name}-seen"
    folder.mkdir()
    model = {"class": "helpers.watching:Watching", "kwargs": {"folder": str(folder)}, "style": "pyg"}
    return run_config(store, out, model=model, trainer={"epochs": 2, **trainer}, pack={"mode": "packed"})


def seen_by(run: RunConfig) -> Seen:
    return seen(run.out.parent / f"{run.out.name}-seen")


def scheduled(run: RunConfig) -> Seen:
    schedule = train_schedule(run, Store.open(run.store).split("node", "train"))
    batches = [schedule.seeds(position) for position in range(schedule.num_batches)]
    return {(batch.epoch, batch.batch_id): [batch.node.tolist()] for batch in batches}


def final(run: RunConfig) -> Checkpoint:
    return load_checkpoint(final_checkpoint(run.out))


def newest(run: RunConfig) -> Checkpoint:
    path = latest_checkpoint(run.out)
    assert path is not None
    return load_checkpoint(path)


def state_bytes(run: RunConfig) -> bytes:
    return (final_checkpoint(run.out) / "state.pt").read_bytes()


def test_any_number_of_workers_takes_each_batch_of_every_epoch_once(store: Path, gang: Gang, tmp_path: Path) -> None:
    jobs = [Job(run=watched(store, tmp_path / f"of-{size}"), world_size=size) for size in (1, 2, 4)]
    assert gang.train_all(*jobs) == [[0] * job.world_size for job in jobs]
    for job in jobs:
        assert seen_by(job.run) == scheduled(job.run)
        assert final(job.run).step == 2 * -(-NUM_BATCHES // job.world_size)
        left = {path.name for path in (job.run.out / "windows").rglob("*")}
        assert not any(name.endswith((".pack", ".sample")) for name in left if name.startswith("rank"))


def test_a_step_of_several_workers_is_the_step_of_one_with_all_their_seeds(
    store: Path, gang: Gang, tmp_path: Path
) -> None:
    # All neighbours and no dropout: what is left to differ is how the gradients come together. 7 batches of 16 make
    # steps of unequal batches, and one that a worker has no batch in.
    def run(name: str, batch_size: int) -> RunConfig:
        sampler = {"fanouts": [-1, -1], "batch_size": batch_size}
        return run_config(store, tmp_path / name, sampler=sampler, model={"name": "gcn", "dropout": 0.0})

    alone, together = run("alone", 32), run("together", 16)
    assert gang.train_all(Job(run=alone, world_size=1), Job(run=together, world_size=2)) == [[0], [0, 0]]
    one, two = final(alone), final(together)
    assert one.step == two.step == 3 * 4
    for name, weight in one.weights.items():
        torch.testing.assert_close(two.weights[name], weight, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(two.state["history"], one.state["history"], strict=True):
        assert ours["train"]["loss"] == pytest.approx(theirs["train"]["loss"], rel=1e-4)


def test_several_workers_classify_digits_as_well_as_one(gang: Gang, tmp_path: Path) -> None:
    path = tmp_path / "digits.gs"
    import_graph(digits_source(), path, ImportOptions(memory=MEMORY))
    sections: dict[str, Any] = {
        "sampler": {"fanouts": [10, 10], "batch_size": 32},
        "model": {"name": "sage", "hidden": 64, "dropout": 0.3},
        "trainer": {"epochs": 9, "lr": 0.01, "threads": 0, "eval_every": 3},
    }
    jobs = [Job(run=run_config(path, tmp_path / f"of-{n}", **sections), world_size=n) for n in (1, 2, 4)]
    assert gang.train_all(*jobs) == [[0] * job.world_size for job in jobs]
    one, two, four = (evaluate(job.run).metrics["test"]["accuracy"] for job in jobs)
    assert one > 0.95
    assert min(two, four) >= one - 0.01


@pytest.mark.data
def test_several_workers_classify_cora_as_well_as_one_and_take_each_batch_once(gang: Gang, tmp_path: Path) -> None:
    graph, path = public_graph("cora.npz"), tmp_path / "cora.gs"
    import_graph(open_source(graph, SourceSpec()), path, ImportOptions(memory=256 * MIB, normalize="row"))

    def run(workers: int, seed: int) -> RunConfig:
        folder = tmp_path / f"seen-{workers}-{seed}"
        folder.mkdir()
        return run_config(
            path,
            tmp_path / f"of-{workers}-{seed}",
            memory="256MiB",
            sampler={"fanouts": [-1, -1], "batch_size": 140 // workers, "seed": seed},  # the same 140 seeds a step
            model={
                "class": "helpers.watching:WatchedGCN",
                "hidden": 64,
                "dropout": 0.8,
                "kwargs": {"folder": str(folder)},
            },
            trainer={"epochs": EPOCHS, "lr": 0.02, "weight_decay": 5e-4, "eval_every": 5, "seed": seed},
        )

    jobs = [Job(run=run(workers, seed), world_size=workers) for workers in (1, 2, 4) for seed in range(3)]
    assert gang.train_all(*jobs) == [[0] * job.world_size for job in jobs]
    for job in jobs:
        taken = seen(Path(job.run.model.kwargs["folder"]))
        size = 140 // job.world_size
        assert taken == {(epoch, batch): [[size]] for epoch in range(EPOCHS) for batch in range(job.world_size)}
    found = [evaluate(job.run).metrics["test"]["accuracy"] for job in jobs]
    one, two, four = (statistics.mean(found[start : start + 3]) for start in (0, 3, 6))
    print(f"test accuracy with 1, 2 and 4 workers: {one:.4f}, {two:.4f}, {four:.4f}")
    assert one > 0.8
    assert max(abs(two - one), abs(four - one)) <= 0.01


def test_a_training_whose_worker_was_killed_ends_with_the_same_bytes_when_it_is_run_again(
    store: Path, gang: Gang, tmp_path: Path
) -> None:
    def run(name: str) -> RunConfig:
        trainer = {"epochs": 3, "checkpoint_every": 3, "threads": 1, "device": "cpu"}
        return run_config(store, tmp_path / name, trainer=trainer, pack={"mode": "packed"})

    jobs = [Job(run=run("whole"), world_size=2)]
    for rank, batches in ((0, 5), (1, 9)):
        broken = run(f"broken-{rank}")
        jobs += [Job(run=broken, world_size=2, kill=(rank, batches)), Job(run=broken, world_size=2)]
    whole, *others = gang.train_all(*jobs)
    assert whole == [0, 0]
    for killed, again in zip(others[::2], others[1::2], strict=True):
        assert sorted(killed) == [-9, 3]  # the other one noticed, and did not wait for ever
        assert again == [0, 0]
    assert {state_bytes(job.run) for job in jobs} == {state_bytes(jobs[0].run)}


def test_workers_that_copy_the_store_to_their_machine_end_with_the_same_bytes(
    store: Path, gang: Gang, tmp_path: Path
) -> None:
    def job(name: str, **cluster: Any) -> Job:
        trainer = {"epochs": 1, "threads": 1, "device": "cpu"}
        return Job(run=run_config(store, tmp_path / name, trainer=trainer, cluster=cluster), world_size=2)

    in_place, copied = job("in-place"), job("copied", store_cache=str(tmp_path / "cache"))
    assert gang.train_all(in_place, copied) == [[0, 0], [0, 0]]
    assert state_bytes(copied.run) == state_bytes(in_place.run)
    (copy,) = (tmp_path / "cache").glob("*.gs")
    assert Store.open(copy).fingerprint == Store.open(store).fingerprint
    assert read_outcome(copied.run).stages["check"].skipped  # the copy was checked when it was made


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 4)])
def test_another_number_of_workers_goes_on_at_the_first_batch_that_nobody_took(
    store: Path, gang: Gang, tmp_path: Path, before: int, after: int
) -> None:
    run = watched(store, tmp_path / "out", checkpoint_every=1)
    assert -9 in gang.train(run, before, kill=(0, 4))
    cursor, earlier = newest(run).cursor, seen_by(run)
    assert cursor == LoaderCursor(epoch=0, next_batch_id=4 - before)
    for path in (tmp_path / "out-seen").iterdir():
        path.unlink()
    assert gang.train(run, after) == [0] * after
    kept = {key: seeds for key, seeds in earlier.items() if key < (cursor.epoch, cursor.next_batch_id)}
    assert {**kept, **seen_by(run)} == scheduled(run)
    assert len(kept) + len(seen_by(run)) == 2 * NUM_BATCHES


def test_the_leader_alone_logs_and_its_result_is_that_of_all_seeds(store: Path, gang: Gang, tmp_path: Path) -> None:
    # Windows of two batches, so that each worker's next ones are made by a process beside it.
    pack = {"mode": "packed", "window": 2}
    run = run_config(store, tmp_path / "out", trainer={"epochs": 2, "patience": 1, "threads": 1}, pack=pack)
    assert gang.train(run, 2) == [0, 0]
    result = read_outcome(run)
    lines = [line for line in read_log(RunFolder(run.out).logs) if line["kind"] == "epoch"]
    assert [line["train"]["loss"] for line in lines] == [record.train["loss"] for record in result.history]
    assert set(result.stages) == {"check", "sample", "pack", "train"}
    assert set(result.val) == {"loss", "accuracy", "macro_f1"}
    assert result.stages["train"].useful_bytes > 0
    # A worker that is lost between its last checkpoint and this file leaves a training that is finished all the same.
    (RunFolder(run.out).cluster / "stages.json").unlink()
    assert {name for name, report in read_outcome(run).stages.items() if report.skipped} == set(result.stages)
    assert read_outcome(run).history == result.history


def test_a_finished_training_is_left_alone_by_any_number_of_workers(store: Path, gang: Gang, tmp_path: Path) -> None:
    run = run_config(store, tmp_path / "out", trainer={"epochs": 1, "threads": 1})
    assert gang.train(run, 2) == [0, 0]
    before = state_bytes(run)
    assert gang.train_all(*(Job(run=run, world_size=size) for size in (1, 2))) == [[0], [0, 0]]
    assert state_bytes(run) == before


def test_more_workers_than_batches_are_refused(store: Path, gang: Gang, tmp_path: Path) -> None:
    run = run_config(store, tmp_path / "out", sampler={"batch_size": 64})
    assert gang.train(run, 3) == [2, 2, 2]
    assert "an epoch has 2 batches of 64 seeds for 100 training nodes; lower cluster.num_workers to 2" in gang.errors
