import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.graphs import tiny_store
from helpers.trained import make_run, train_nothing

from graphsys.core.config import RunConfig
from graphsys.core.errors import ArtefactError, MemoryBudgetError
from graphsys.core.units import MIB
from graphsys.models.base import BatchModel
from graphsys.storage import disk_speed
from graphsys.storage.manifest import open_sealed_json
from graphsys.storage.store import Store
from graphsys.storage.verify import verify
from graphsys.trainers.company import Company, Slowdown
from graphsys.trainers.cost_model import Paces, StageCost, splits_of, stage_costs
from graphsys.trainers.engine_speed import EngineSpeed
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit
from graphsys.trainers.inference import open_trained
from graphsys.trainers.inference_cost import infer_cost
from graphsys.trainers.layerwise import layer_width
from graphsys.trainers.pass_rehearsal import PassPace, rehearse_passes
from graphsys.trainers.plan import Mode
from graphsys.trainers.predict import MODES, STAGES, ModePrediction, Prediction, compare, predict, save_prediction
from graphsys.trainers.rehearsal import Pace, Sampling
from graphsys.trainers.run_plans import RunPlans
from graphsys.trainers.split_cost import Work

# What a stage asks for itself; the kernel's counters also hold what the page cache had or wrote back.
BYTES = {
    "sample": ("useful_bytes",),
    "pack": ("useful_bytes", "device_bytes_written"),
    "train": ("useful_bytes", "device_bytes_read"),
}
MEMORY = "5632KiB"  # less than the features and a batch, more than two batches and the plan of a window


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("predict")
    store = tiny_store(folder, num_nodes=4000, num_edges=32_000, num_features=256)
    return make_run(
        store,
        folder / "run",
        memory=MEMORY,
        pack={"mode": "packed"},  # what ``auto`` takes depends on the disk's speed at that moment
        sampler={"fanouts": [4, 4], "batch_size": 16},
        trainer={"epochs": 1, "threads": 1, "device": "cpu"},
    )


@pytest.fixture(scope="module")
def prediction(run: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk_speed, "FILE_BYTES", 8 << 20)
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return predict(run)


def test_one_of_two_workers_is_priced_with_its_share_of_batches_cores_and_disk(
    prediction: Prediction, run: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_speed, "FILE_BYTES", 8 << 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cores = os.sched_getaffinity(0)
    cluster = run.cluster.model_copy(update={"num_workers": 2})
    one = predict(run.model_copy(update={"cluster": cluster}), compares=False)
    measured = disk_speed.disk_speed(run.out)
    assert one.work.disk.random_reads_s == measured.random_reads_s / 2  # remembered; the others are measured anew
    assert one.work.cores == max(1, len(cores) // 2)
    assert one.work.schedule.num_batches == -(-prediction.work.schedule.num_batches // 2)
    assert os.sched_getaffinity(0) == cores


def test_workers_that_share_a_disk_read_no_faster_than_it(work: Work, prediction: Prediction) -> None:
    slow = replace(work, workers=2, disk=replace(work.disk, read_bytes_s=1e4))
    plans = next(mode.plans for mode in prediction.modes if mode.mode == "packed")
    assert plans is not None
    (split, *_) = splits_of(slow, plans)
    assert train_cost(slow, plans, pace(1e-6)).seconds >= split.read * split.step_bytes / 1e4


@pytest.fixture
def work(prediction: Prediction) -> Work:
    """A disk of 1 GB/s and steps of 1 ms."""
    disk = disk_speed.DiskSpeed(read_bytes_s=1e9, write_bytes_s=1e9, random_reads_s=1e4, measured="2026-01-31")
    engine = EngineSpeed(plan_access_s=1e-7, pack_bytes_s=1e9, byte_s=2e-9, version="1", measured="2026-01-31")
    return replace(
        prediction.work,
        disk=disk,
        engine=engine,
        step_s=1e-3,
        touch_byte_s=0.0,
        forward_s=1e-3,
        sampling=Sampling(batch_s=1e-3, window_batches=4),
    )


def pace(
    batch_s: float, *, cpu_s: float = 0.0, start_s: float = 0.0, load_bytes_s: float = math.inf, fill_s: float = 0.0
) -> Paces:
    """Training and validation go equally fast."""
    one = Pace(start_s=start_s, batch_s=batch_s, cpu_s=cpu_s, load_bytes_s=load_bytes_s, fill_s=fill_s)
    return Paces(train=one, val=one)


def batches(work: Work) -> float:
    """Batches of training and of validation, over all epochs."""
    assert work.val_schedule is not None
    train = work.schedule.epochs * len(work.schedule.nodes) / work.schedule.batch_size
    return train + work.validations * len(work.val_schedule.nodes) / work.val_schedule.batch_size


FAST = pace(1e-3)


def sample_cost(work: Work, plans: RunPlans, paces: Paces) -> StageCost:
    return stage_costs(work, plans, paces)["sample"]


def pack_cost(work: Work, plans: RunPlans, paces: Paces) -> StageCost:
    return stage_costs(work, plans, paces)["pack"]


def train_cost(work: Work, plans: RunPlans, paces: Paces) -> StageCost:
    return stage_costs(work, plans, paces)["train"]


@pytest.fixture
def plans(prediction: Prediction) -> RunPlans:
    """The plans of the chosen mode."""
    (chosen,) = (row.plans for row in prediction.modes if row.chosen)
    assert chosen is not None
    return chosen


def test_every_mode_has_a_row_and_the_chosen_one_says_why(prediction: Prediction) -> None:
    assert tuple(row.mode for row in prediction.modes) == MODES
    chosen = [row for row in prediction.modes if row.chosen]
    assert [row.mode for row in chosen] == [prediction.plan.mode]
    assert chosen[0].why == prediction.plan.reason


def test_every_stage_is_predicted(prediction: Prediction) -> None:
    assert set(prediction.stages) == set(STAGES)
    assert all(cost.seconds >= 0 and cost.device_bytes_read >= 0 for cost in prediction.stages.values())


def test_a_mode_that_cannot_be_says_why(prediction: Prediction) -> None:
    (row,) = [row for row in prediction.modes if row.mode == "memory"]
    assert row.plan is None
    assert "set memory to at least" in row.why
    assert row.as_dict()["possible"] is False


def test_a_prediction_is_kept_as_sealed_json(prediction: Prediction, tmp_path: Path) -> None:
    path = save_prediction(prediction, tmp_path / "run")
    assert path == tmp_path / "run" / "plan.json"
    held = open_sealed_json(path)
    assert held == json.loads(json.dumps(prediction.as_dict()))
    verify(tmp_path / "run")


def test_a_training_that_breaks_off_before_its_first_window_leaves_what_was_foretold(
    run: RunConfig, prediction: Prediction, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def keep() -> None:
        save_prediction(prediction, out)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(run.model_copy(update={"out": out}), on_start=keep)
    assert (out / "plan.json").is_file()
    assert not list((out / "windows").rglob("window-*"))


def test_a_budget_too_small_for_any_mode_is_refused(run: RunConfig) -> None:
    with pytest.raises(MemoryBudgetError, match="set memory to at least"):
        predict(make_run(run.store, run.out, memory="64KiB"))


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"gone\.gs does not exist"):
        predict(make_run(tmp_path / "gone.gs", tmp_path / "run"))


def test_predicting_leaves_nothing_in_the_run_folder(run: RunConfig, prediction: Prediction) -> None:
    assert prediction.run is run
    assert not run.out.exists()


def test_packed_training_reads_less_than_direct_training(work: Work, prediction: Prediction) -> None:
    plans = {row.mode: row.plans for row in prediction.modes}
    packed, direct = plans["packed"], plans["direct"]
    assert packed is not None
    assert direct is not None
    assert train_cost(work, packed, FAST).device_bytes_read < train_cost(work, direct, FAST).device_bytes_read
    assert pack_cost(work, packed, FAST).device_bytes_written > 0
    assert pack_cost(work, direct, FAST).seconds == 0


def test_training_takes_what_its_batches_took_in_the_rehearsal(work: Work, plans: RunPlans) -> None:
    assert train_cost(work, plans, pace(1.0)).seconds == pytest.approx(batches(work), rel=1e-4)


def test_opening_batches_is_paid_once_for_training_and_once_for_every_validation(work: Work, plans: RunPlans) -> None:
    together, apart = (
        train_cost(replace(work, validations=3), replace(plans, together=share), pace(0.0, start_s=100.0)).seconds
        for share in (True, False)
    )
    assert together == pytest.approx(100.0 * (1 + 3), rel=1e-4)
    assert apart == pytest.approx(100.0 * (3 + 3), rel=1e-4)


def test_filling_the_cache_of_a_packed_run_is_paid_whenever_its_batches_are_opened(work: Work, plans: RunPlans) -> None:
    packed = replace(plans, train=replace(plans.train, mode="packed"), val=None)
    alone = replace(work, val_pilot=None, val_schedule=None)
    assert train_cost(alone, packed, pace(0.0, fill_s=100.0)).seconds == pytest.approx(100.0, rel=1e-3)


def test_bringing_all_rows_into_memory_is_paid_before_the_first_batch(work: Work, plans: RunPlans) -> None:
    held = replace(plans, train=replace(plans.train, mode="memory"))
    slow, fast = (train_cost(work, held, pace(1.0, load_bytes_s=speed)).seconds for speed in (1e3, math.inf))
    assert slow - fast == pytest.approx(work.feature_bytes / 1e3)


def test_training_waits_for_windows_that_take_longer_to_make(work: Work, plans: RunPlans) -> None:
    beside = replace(plans, train=replace(plans.train, mode="direct", window_batches=1), val=None)
    alone = replace(work, val_pilot=None, val_schedule=None, sampling=Sampling(batch_s=1.0, window_batches=4))
    made = alone.schedule.num_batches - 1  # the first one is there before
    assert train_cost(alone, beside, pace(0.0)).seconds == pytest.approx(made, rel=0.01)


def test_making_windows_takes_longer_beside_training_that_leaves_no_core_free(work: Work, plans: RunPlans) -> None:
    beside = replace(plans, train=replace(plans.train, window_batches=1))
    two = replace(work, cores=2, sample_threads=2)
    idle, busy = (sample_cost(two, beside, pace(1.0, cpu_s=seconds)).seconds for seconds in (0.0, 2.0))
    assert idle < busy <= 2 * idle


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_priced_in_the_company_that_was_rehearsed(work: Work, plans: RunPlans, mode: Mode) -> None:
    beside = replace(plans, train=replace(plans.train, mode=mode, window_batches=4), val=None)
    alone = replace(work, val_pilot=None, val_schedule=None)
    slow = Company(slowdowns={"sample": Slowdown(training=1.0, making=9.0)})  # packing was not rehearsed
    costs = [
        stage_costs(alone, beside, Paces(train=replace(FAST.train, batch_s=1.0, company=company), val=None))
        for company in (None, slow)
    ]
    assert costs[0]["sample"].seconds < costs[1]["sample"].seconds
    assert costs[0]["train"].seconds == pytest.approx(costs[1]["train"].seconds, rel=0.1)


def test_sampling_takes_what_a_rehearsed_window_took(work: Work, plans: RunPlans) -> None:
    slower = replace(work, sampling=Sampling(batch_s=1.0, window_batches=4))
    assert (
        sample_cost(slower, plans, FAST).seconds >= work.schedule.num_batches > sample_cost(work, plans, FAST).seconds
    )


def test_a_topology_that_the_pilot_found_in_memory_is_not_read_again(work: Work, plans: RunPlans) -> None:
    cold, warm = (replace(work, pilot=replace(work.pilot, read_bytes=read)) for read in (work.topology_bytes // 4, 0))
    assert sample_cost(cold, plans, FAST).device_bytes_read == work.topology_bytes - work.topology_bytes // 4
    assert sample_cost(warm, plans, FAST).device_bytes_read == 0


def test_edges_that_are_read_by_groups_are_read_for_every_batch(work: Work, plans: RunPlans) -> None:
    grouped = replace(work, sampling=replace(work.sampling, read_bytes=1000.0), val_pilot=None, val_schedule=None)
    read = sample_cost(grouped, plans, FAST).device_bytes_read
    assert read == pytest.approx(1000 * work.schedule.num_batches, rel=0.05)


def test_a_mode_pays_off_after_as_many_epochs_as_its_preparation_costs(prediction: Prediction) -> None:
    (row,) = (row for row in prediction.modes if row.chosen)

    def mode(before_s: float, epoch_s: float) -> ModePrediction:
        train = replace(row.stages["train"], seconds=10 * epoch_s)
        return replace(row, before_s=before_s, epochs=10, stages={**row.stages, "train": train})

    assert mode(30.0, 1.0).break_even(mode(5.0, 2.0)) == 25
    assert mode(5.0, 1.0).break_even(mode(5.0, 2.0)) == 1
    assert mode(0.0, 2.0).break_even(mode(5.0, 2.0)) is None
    assert set(prediction.break_even()) == {other.mode for other in prediction.modes if other.plan} - {row.mode}


def test_after_a_resume_the_rest_is_predicted(run: RunConfig, prediction: Prediction) -> None:
    steps = prediction.work.schedule.batches_per_epoch * run.trainer.epochs
    rest = predict(run, done_steps=steps // 4)
    assert rest.share == pytest.approx(0.75, abs=0.01)
    for name in ("device_bytes_read", "device_bytes_written"):
        whole, part = (getattr(found.stages["pack"], name) for found in (prediction, rest))
        assert part == pytest.approx(rest.share * whole, rel=1e-6)


def passes(work: Work, *, edge_s: float = 0.0) -> list[PassPace]:
    return [PassPace(state_channels=dim, edge_s=edge_s, source_s=0.0, own_s=0.0) for dim in (work.dim, 4)]


def test_inference_reads_the_rows_once_per_range_and_once_more(work: Work) -> None:
    wide, narrow = (infer_cost(replace(work, memory=memory), passes(work)) for memory in (256 * MIB, 5 * MIB))
    layers = work.num_nodes * 4 * (work.dim + work.layer_dims[0])
    scored = work.num_nodes * (4 * work.layer_dims[-1] + 9)
    assert wide.device_bytes_read == 2 * layers + scored + 2 * work.topology_bytes
    assert narrow.device_bytes_read > wide.device_bytes_read
    assert narrow.useful_bytes == wide.useful_bytes


def test_inference_takes_as_long_as_its_edges_do(work: Work) -> None:
    slow = infer_cost(work, passes(work, edge_s=1e-3)).seconds
    assert slow == pytest.approx(2e-3 * work.num_edges, rel=0.5)
    assert slow > 10 * infer_cost(work, passes(work)).seconds


def test_inference_pays_for_memory_that_nobody_has_touched(work: Work) -> None:
    warm, fresh = (infer_cost(replace(work, touch_byte_s=seconds), passes(work)) for seconds in (0.0, 1e-6))
    assert fresh.seconds == pytest.approx(warm.seconds + 1e-6 * warm.memory_bytes)


def test_a_network_whose_layers_are_no_passes_pays_for_every_chunk(work: Work) -> None:
    small = replace(work, memory=2 * MIB)
    assert infer_cost(small, []).device_bytes_read > infer_cost(small, passes(work)).device_bytes_read


@pytest.mark.parametrize("name", ["sage", "gcn", "gat"])
@pytest.mark.parametrize("memory", ["6MiB", "16MiB"])
def test_evaluation_reads_and_writes_what_was_foretold(
    run: RunConfig, work: Work, tmp_path: Path, name: str, memory: str
) -> None:
    small = make_run(run.store, tmp_path / "run", memory=memory, model={"name": name, "hidden": 64})
    train_nothing(small)
    network = open_trained(small).model
    assert isinstance(network, BatchModel)
    store = Store.open(run.store)
    paces = rehearse_passes(
        network, store, store.edge_type_within("node"), dims=(work.dim, 64, 4), memory=small.memory,
        device=torch.device("cpu"),
    )  # fmt: skip
    assert all(pace.edge_s > 0 and pace.source_s > 0 and pace.own_s > 0 for pace in paces)
    told = infer_cost(
        replace(
            work,
            memory=small.memory,
            layer_dims=(64, 4),
            width=layer_width(network, 1),
            needs_degree=network.needs_degree,
        ),
        paces,
    )
    report = evaluate(small).report
    layers = report.details["inference"]["details"].values()
    read = (
        sum(layer["row_bytes_read"] + layer["edge_bytes_read"] for layer in layers) + report.details["row_bytes_read"]
    )
    assert told.device_bytes_read == pytest.approx(read, rel=0.2)
    assert told.device_bytes_written == sum(layer["bytes_written"] for layer in layers)
    assert told.useful_bytes == pytest.approx(report.useful_bytes, rel=0.01)


def test_predicted_stands_beside_measured_and_bytes_are_near(run: RunConfig, prediction: Prediction) -> None:
    measured = {name: report.as_dict() for name, report in fit(run).stages.items()}
    predicted: dict[str, Any] = prediction.as_dict()["stages"]
    rows = {row["stage"]: row for row in compare(predicted, measured)}
    assert list(rows) == ["sample", "pack", "train"]
    for stage, row in rows.items():
        assert row["seconds"] == (predicted[stage]["seconds"], measured[stage]["seconds"])
    for stage, names in BYTES.items():
        for name in names:
            expected, found = rows[stage][name]
            assert expected == pytest.approx(found, rel=0.15), (stage, name)
