"""Runs with strategy ``pipeline``, whole: train, kill, resume in another shape, evaluate."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.killing import Kill, launch
from helpers.pipelines import (
    assert_near,
    on_processes,
    pipeline_run,
    pipeline_store,
    plain_forward,
    run_worker,
)
from torch import Tensor

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, StaleArtefactError
from graphsys.storage.store import Store
from graphsys.storage.verify import verify
from graphsys.trainers.checkpoint import final_checkpoint, load_checkpoint
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit
from graphsys.trainers.inference import infer, open_trained
from graphsys.trainers.model_factory import build_layered_model
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.worker import train_worker

FOUR_CHUNKS = {"chunks": 4}


def train(run: RunConfig, folder: Path) -> None:
    """Train on as many processes as the run asks for."""
    world_size = Shape.of(run).world_size
    if world_size == 1:
        fit(run)
    else:
        on_processes(run_worker, world_size, folder, run)


def weights(run: RunConfig) -> dict[str, Tensor]:
    return load_checkpoint(final_checkpoint(run.out)).weights


def assert_same_state(one: RunConfig, other: RunConfig) -> None:
    """Compare all that a checkpoint holds, bit by bit."""
    first, second = (load_checkpoint(final_checkpoint(run.out)) for run in (one, other))
    assert {name: spec.checksums for name, spec in first.manifest.arrays.items()} == {
        name: spec.checksums for name, spec in second.manifest.arrays.items()
    }
    # A call that ended in between left a line of its own in the log.
    assert_equal({**first.state, "log_lines": 0}, {**second.state, "log_lines": 0})


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal(one[name], other[name])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return pipeline_store(tmp_path)


def test_a_run_learns_and_is_evaluated_exactly(tmp_path: Path, store: Path) -> None:
    run = pipeline_run(store, tmp_path / "run", trainer={"epochs": 40, "lr": 0.05}, cluster=FOUR_CHUNKS)
    result = fit(run)
    assert result.epochs == 40
    assert result.history[-1].train["loss"] < 0.6 * result.history[0].train["loss"]
    metrics = evaluate(run).metrics
    assert metrics["val"] == pytest.approx(result.val, abs=1e-6)
    assert metrics["test"]["accuracy"] > 0.8
    outputs = infer(open_trained(run)).last.read()
    opened = Store.open(store)
    net = build_layered_model(run.model, 6, 3, seed=0)
    net.load_state_dict(weights(run))
    net.eval()
    with torch.no_grad():
        topology = opened.topology(opened.edge_type_within("node"), in_memory=True)
        expected = plain_forward(net, topology, torch.from_numpy(opened.features("node").read()))
    assert_near(torch.from_numpy(outputs), expected)
    assert fit(run).skipped
    assert verify(run.out).nbytes > 0


def test_the_bits_of_a_training_are_the_same_for_any_number_of_stages(tmp_path: Path, store: Path) -> None:
    runs = [
        pipeline_run(store, tmp_path / f"run-{stages}", cluster={**FOUR_CHUNKS, "stages": stages}) for stages in (1, 2)
    ]
    for run in runs:
        train(run, tmp_path / f"group-{run.cluster.stages}")
    assert_same_state(*runs)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Return a run of two stages that has been trained."""
    folder = tmp_path_factory.mktemp("undisturbed")
    run = killable_run(pipeline_store(folder), folder / "run")
    train(run, folder)
    return run


def killable_run(store: Path, out: Path) -> RunConfig:
    return pipeline_run(store, out, trainer={"checkpoint_every": 1}, cluster={**FOUR_CHUNKS, "stages": 2})


@pytest.mark.parametrize(("moment", "rank"), [("forward", 0), ("backward", 1), ("update", 0), ("checkpoint", 1)])
def test_a_process_killed_inside_an_epoch_is_replaced_and_the_training_ends_with_the_same_bits(
    tmp_path: Path, undisturbed: RunConfig, moment: str, rank: int
) -> None:
    run = killable_run(undisturbed.store, tmp_path / "run")
    killed, again = launch(run, tmp_path, Kill(moment, rank, tmp_path / "killed"))
    assert killed[rank] == -signal.SIGKILL
    assert killed[1 - rank] == 1  # it noticed, and did not wait for ever
    assert again == [0, 0]
    assert_same_state(undisturbed, run)
    assert not list((run.out / "checkpoints").glob(".*"))


def test_a_run_that_was_started_with_four_stages_goes_on_with_two_and_with_one(tmp_path: Path, store: Path) -> None:
    def spread(stages: int, epochs: int, out: str) -> RunConfig:
        cluster = {**FOUR_CHUNKS, "stages": stages}
        return pipeline_run(store, tmp_path / out, trainer={"epochs": epochs, "keep": "last"}, cluster=cluster)

    for place, stages in enumerate((4, 2, 1)):
        train(spread(stages, 2 * place + 3, "changing"), tmp_path / f"group-{stages}")
    train(spread(1, 7, "steady"), tmp_path)
    assert_same_state(spread(1, 7, "changing"), spread(1, 7, "steady"))


def test_another_number_of_ways_or_chunks_goes_on_from_the_same_snapshot(tmp_path: Path, store: Path) -> None:
    first = pipeline_run(store, tmp_path / "run", trainer={"epochs": 3}, cluster={"stages": 1, "ways": 2, "chunks": 6})
    train(first, tmp_path / "ways")
    second = pipeline_run(store, tmp_path / "run", trainer={"epochs": 5}, cluster={"chunks": 5})
    result = fit(second)
    assert result.epochs == 5
    saved = load_checkpoint(final_checkpoint(first.out))
    assert sorted(saved.manifest.arrays) == [
        *(f"history/part-0/layer-{number:04d}" for number in range(4)),
        "history/part-0/node",
    ]
    losses = [record.train["loss"] for record in result.history]
    assert losses == sorted(losses, reverse=True)


def test_workers_validate_as_one_process_evaluates(tmp_path: Path, store: Path) -> None:
    run = pipeline_run(store, tmp_path / "run", cluster={"stages": 2, "ways": 2, "chunks": 6})
    train(run, tmp_path / "train")
    validated = load_checkpoint(final_checkpoint(run.out)).manifest.content["metrics"]["val"]
    assert validated == pytest.approx(evaluate(run).metrics["val"], abs=1e-6)


def test_the_log_says_what_was_sent_and_how_long_each_process_computed_and_waited(tmp_path: Path, store: Path) -> None:
    run = pipeline_run(store, tmp_path / "run", trainer={"epochs": 2}, cluster={**FOUR_CHUNKS, "stages": 2})
    train(run, tmp_path / "train")
    lines = [json.loads(line) for line in (run.out / "logs" / "metrics.jsonl").read_text().splitlines()]
    epochs = [line["pipeline"] for line in lines if line["kind"] == "epoch"]
    assert [epoch["bytes_sent"]["boundary"] for epoch in epochs] == [2 * 120 * (8 + 8) * 4] * 2
    assert all(len(epoch["busy_s"]) == len(epoch["wait_s"]) == 2 and min(epoch["busy_s"]) > 0 for epoch in epochs)
    turns = json.loads((run.out / "logs" / "turns.json").read_text())["turns"]
    assert [len(part) for part in turns] == [8, 8]


def test_a_call_in_the_same_shape_takes_the_cut_that_an_earlier_one_measured(tmp_path: Path, store: Path) -> None:
    def trained(stages: int, epochs: int) -> bytes:
        shape = {"stages": stages, "chunks": 4}
        run = pipeline_run(store, tmp_path / "run", cluster=shape, trainer={"epochs": epochs})
        train(run, tmp_path / "gang")
        return (run.out / "cut.json").read_bytes()

    measured = trained(2, 1)
    assert trained(2, 2) == measured
    other = trained(4, 3)
    assert json.loads(other)["bounds"] == [0, 1, 2, 3, 4]
    (tmp_path / "run" / "cut.json").write_bytes(measured[:-20])
    assert len(json.loads(trained(2, 4))["bounds"]) == 3
    verify(tmp_path / "run")


def test_rows_that_do_not_fit_in_memory_are_mapped_from_disk_with_the_same_result(tmp_path: Path, store: Path) -> None:
    roomy, tight = (
        pipeline_run(store, tmp_path / name, cluster=FOUR_CHUNKS, memory=memory)
        for name, memory in (("roomy", "64MiB"), ("tight", "24KiB"))
    )
    fit(roomy)
    train_worker(tight, rank=0, world_size=1)
    assert_same_state(roomy, tight)


def test_what_does_not_fit_is_refused_in_one_sentence(tmp_path: Path, store: Path) -> None:
    with pytest.raises(ConfigError, match=r"121 chunks of a graph of 120 nodes"):
        fit(pipeline_run(store, tmp_path / "chunks", cluster={"chunks": 121}))
    with pytest.raises(ConfigError, match=r"2 stages x 1 ways need 2 processes, and 1 were started"):
        fit(pipeline_run(store, tmp_path / "stages", cluster={"stages": 2}))
    fit(pipeline_run(store, tmp_path / "run", trainer={"epochs": 1}))
    with pytest.raises(StaleArtefactError, match=r"model.hidden 8 -> 9"):
        fit(pipeline_run(store, tmp_path / "run", trainer={"epochs": 1}, model={"hidden": 9}))
    with pytest.raises(ConfigError, match=r"training broke off in epoch \d: the loss .*became (nan|inf)"):
        fit(pipeline_run(store, tmp_path / "far", trainer={"lr": 1e30, "epochs": 9}))


def test_features_that_overflow_are_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    store = pipeline_store(tmp_path, scale=1e39)
    with pytest.raises(ConfigError, match=r"before the weights took a step; features of .* are too large for float32"):
        fit(pipeline_run(store, tmp_path / "run"))
