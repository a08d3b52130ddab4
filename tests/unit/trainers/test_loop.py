from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training import BreakOff, InterruptedTrainingError, MemoryFeed, memory_graph, run_config

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError
from graphsys.core.progress import SILENT, Progress
from graphsys.trainers.checkpoint import latest_checkpoint, list_checkpoints, load_checkpoint
from graphsys.trainers.device import exact_torch
from graphsys.trainers.logs import RunLog, read_log
from graphsys.trainers.loop import TrainingLoop
from graphsys.trainers.model_factory import build_model
from graphsys.trainers.objective import SingleLabel
from graphsys.trainers.resume import take_over
from graphsys.trainers.run_folder import RunFolder
from graphsys.trainers.state import new_state
from graphsys.trainers.step import Setting, check_finite

CPU = torch.device("cpu")
TIMES = {"seconds", "io"}


def train(run: RunConfig, progress: Progress = SILENT, **feed_options: Any) -> Path:
    """Train on a graph in memory, from the run's newest checkpoint if there is one."""
    folder = RunFolder(run.out)
    setting = Setting(config=run.trainer, objective=SingleLabel(3), device=CPU)
    with exact_torch(CPU, 1):
        state, lines = new_state(build_model(run, 7, 3), run.trainer, CPU), 0
        if (path := latest_checkpoint(run.out)) is not None:
            earlier = load_checkpoint(path)
            take_over(state, earlier)
            lines = earlier.state["log_lines"]
        feed = MemoryFeed(memory_graph(), run, **feed_options)
        with RunLog(folder.logs, num_lines=lines, step=state.step) as log:
            return TrainingLoop(run, state, setting, feed, log, parents={"store": "ff"}).run(progress)


def loop_run(out: Path, **trainer: Any) -> RunConfig:
    values = {"epochs": 5, "checkpoint_every": 3, "threads": 1, **trainer}
    return run_config(Path("s.gs"), out, trainer=values, model={"name": "gcn", "hidden": 8, "dropout": 0.5})


def untimed(out: Path) -> list[dict[str, Any]]:
    lines = read_log(RunFolder(out).logs)
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def test_training_lowers_the_loss_and_ends_with_a_final_checkpoint(tmp_path: Path) -> None:
    found = load_checkpoint(train(loop_run(tmp_path, epochs=30)))
    history = found.state["history"]
    assert found.final
    assert (found.step, found.epoch) == (60, 30)
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]


@pytest.mark.parametrize("options", [{}, {"optimizer": "adamw", "scheduler": "plateau", "scheduler_step": 1}])
def test_a_training_broken_off_after_any_step_ends_with_the_same_bytes_and_log(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = train(loop_run(tmp_path / "whole", **options))
    for steps in range(1, 10):
        run = loop_run(tmp_path / f"broken-{steps}", **options)
        with pytest.raises(InterruptedTrainingError):
            train(run, BreakOff(steps))
        resumed = train(run)
        for name in ("state.pt", "manifest.json"):
            assert (resumed / name).read_bytes() == (whole / name).read_bytes()
        assert untimed(run.out) == untimed(tmp_path / "whole")


def test_validating_with_the_training_batches_closed_gives_the_same_bytes(tmp_path: Path) -> None:
    paths = [train(loop_run(tmp_path / str(alone), eval_every=2), alone=alone) for alone in (False, True)]
    assert (paths[0] / "state.pt").read_bytes() == (paths[1] / "state.pt").read_bytes()


def test_a_training_broken_off_again_and_again_still_ends_the_same(tmp_path: Path) -> None:
    whole = train(loop_run(tmp_path / "whole", checkpoint_every=2))
    run = loop_run(tmp_path / "broken", checkpoint_every=2)
    for _ in range(4):  # each call gets two checkpoints further and loses a step
        with pytest.raises(InterruptedTrainingError):
            train(run, BreakOff(3))
    assert (train(run) / "state.pt").read_bytes() == (whole / "state.pt").read_bytes()


def test_more_epochs_continue_a_finished_training_as_if_it_had_never_ended(tmp_path: Path) -> None:
    whole = train(loop_run(tmp_path / "whole", epochs=6))
    train(loop_run(tmp_path / "grown", epochs=4))
    grown = train(loop_run(tmp_path / "grown", epochs=6))
    first, second = load_checkpoint(whole), load_checkpoint(grown)
    for name, tensor in first.state["model"].items():
        assert torch.equal(tensor, second.state["model"][name])


def test_the_random_numbers_of_the_caller_are_untouched(tmp_path: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    train(loop_run(tmp_path, epochs=1))
    assert torch.equal(torch.rand(2), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    best = load_checkpoint(train(loop_run(tmp_path / "best", epochs=8, lr=0.1)))
    epoch = best.manifest.content["best_epoch"]
    assert epoch == max(range(8), key=lambda index: best.state["history"][index]["rank"])
    # A run of that many epochs that keeps its last weights ends with the same ones.
    last = load_checkpoint(train(loop_run(tmp_path / "last", epochs=epoch + 1, lr=0.1, keep="last")))
    assert all(torch.equal(tensor, last.weights[name]) for name, tensor in best.weights.items())
    assert last.state["best"] is None


def test_without_validation_nodes_the_last_weights_are_kept(tmp_path: Path) -> None:
    found = load_checkpoint(train(loop_run(tmp_path), validation=False))
    assert found.manifest.content["chosen"] == "last"
    assert found.manifest.content["metrics"]["val"] is None


def test_patience_stops_a_training_that_no_longer_improves(tmp_path: Path) -> None:
    run = loop_run(tmp_path, epochs=400, lr=0.2, patience=3, checkpoint_every=1000)
    found = load_checkpoint(train(run))
    assert found.final
    assert found.epoch == found.manifest.content["best_epoch"] + 4
    assert found.epoch < 400


def test_validation_runs_every_so_many_epochs_and_at_the_end(tmp_path: Path) -> None:
    found = load_checkpoint(train(loop_run(tmp_path, epochs=5, eval_every=2)))
    assert [record["val"] is not None for record in found.state["history"]] == [False, True, False, True, True]


def test_the_newest_two_checkpoints_are_kept(tmp_path: Path) -> None:
    train(loop_run(tmp_path, epochs=5, checkpoint_every=2))
    names = [path.name for path in list_checkpoints(RunFolder(tmp_path).checkpoints)]
    assert names == ["step-00000008", "step-00000010"]


def test_a_schedule_changes_the_rate_that_is_logged_and_used(tmp_path: Path) -> None:
    train(loop_run(tmp_path, epochs=4, scheduler="step", scheduler_step=1, scheduler_gamma=0.1, lr=1e-3))
    rates = [line["lr"] for line in read_log(RunFolder(tmp_path).logs) if line["kind"] == "epoch"]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-5, 1e-6])


def test_a_loss_that_is_no_number_ends_the_training_with_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss became (nan|inf); lower trainer\.lr \(now 1e\+30\)"):
        train(loop_run(tmp_path, lr=1e30))


def test_bfloat16_trains_on_a_cpu_and_keeps_float32_weights(tmp_path: Path) -> None:
    found = load_checkpoint(train(loop_run(tmp_path, precision="bfloat16")))
    assert {tensor.dtype for tensor in found.weights.values()} == {torch.float32}


def test_an_overflow_that_only_the_validation_meets_ends_the_training_before_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the loss of the validation became (nan|inf); lower trainer\.lr"):
        train(loop_run(tmp_path, epochs=1, lr=1e20), batch_size=30)
    assert list_checkpoints(RunFolder(tmp_path).checkpoints) == []


def test_weights_that_the_last_step_of_an_epoch_spoilt_are_refused(tmp_path: Path) -> None:
    run = loop_run(tmp_path)
    state = new_state(build_model(run, 7, 3), run.trainer, CPU)
    check_finite(state, run.trainer)
    name, weight = next(iter(state.model.named_parameters()))
    with torch.no_grad():
        weight.view(-1)[0] = torch.nan
    with pytest.raises(ConfigError, match=rf"the weights {name} are no numbers any more; lower trainer\.lr"):
        check_finite(state, run.trainer)
