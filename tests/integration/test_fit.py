"""Training through the store, the sampler, the windows and the loader."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.graphs import MEMORY, tiny_graph, tiny_store
from helpers.training import BreakOff, InterruptedTrainingError, run_config

from graphsys.core.config import RunConfig
from graphsys.core.errors import ArtefactError, ConfigError, InputError, StaleArtefactError
from graphsys.core.progress import SilentProgress
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import homogeneous
from graphsys.trainers.checkpoint import list_checkpoints, load_checkpoint
from graphsys.trainers.fit import fit
from graphsys.trainers.logs import read_log
from graphsys.trainers.run_folder import RunFolder

TIMES = {"seconds", "io"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


def state_bytes(run: RunConfig) -> bytes:
    return (list_checkpoints(RunFolder(run.out).checkpoints)[-1] / "state.pt").read_bytes()


def untimed(run: RunConfig) -> list[dict[str, Any]]:
    lines = read_log(RunFolder(run.out).logs)
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def labelled_store(folder: Path, y: Any, split: Any = None) -> Path:
    graph = tiny_graph()
    source = homogeneous(
        graph.edge_index, num_nodes=200, x=graph.x / 200, y=y, split=graph.split if split is None else split
    )
    import_graph(source, folder / "s.gs", ImportOptions(memory=MEMORY))
    return folder / "s.gs"


def test_a_training_writes_its_config_checkpoint_and_logs_and_says_what_it_cost(store: Path, tmp_path: Path) -> None:
    run = run_config(store, tmp_path / "out")
    result = fit(run)
    assert load_checkpoint(result.checkpoint).final
    assert yaml.safe_load((run.out / "config.yaml").read_text()) == run.resolved()
    assert len(result.epoch_s) == result.epochs == 3
    assert set(result.train) == {"loss"}
    assert set(result.val) == {"loss", "accuracy", "macro_f1"}
    assert result.val == result.history[result.best_epoch or 0].val
    assert not any(report.skipped for name, report in result.stages.items() if name != "pack")
    # 100 training nodes in batches of 16, 3 epochs; 50 validation nodes in 4 batches, 3 times.
    assert result.stages["train"].details["loader"]["batches"] == 3 * 7 + 3 * 4


def test_a_finished_training_is_not_done_again(store: Path, tmp_path: Path) -> None:
    run = run_config(store, tmp_path / "out")
    first = fit(run)
    before = {path: path.stat().st_mtime_ns for path in run.out.rglob("*")}
    again = fit(run)
    assert again.skipped
    assert again.stages["train"].skipped
    assert (again.checkpoint, again.history, again.epoch_s) == (first.checkpoint, first.history, first.epoch_s)
    assert {path: path.stat().st_mtime_ns for path in run.out.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "samples"),
    [("sage", "fresh"), ("sage", "frozen"), ("gcn", "frozen"), ("gat", "frozen"), ("gin", "frozen")],
)
def test_all_modes_end_with_the_same_weights(store: Path, tmp_path: Path, name: str, samples: str) -> None:
    weights = {}
    for mode in ("memory", "direct", "cached", "packed"):
        run = run_config(
            store,
            tmp_path / mode,
            model={"name": name, "hidden": 8},
            pack={"mode": mode, "window": 5},
            sampler={"samples": samples, "fanouts": [3, 2], "batch_size": 16},
        )
        fit(run)
        weights[mode] = state_bytes(run)
    assert weights["direct"] == weights["memory"]
    assert weights["cached"] == weights["memory"]
    assert weights["packed"] == weights["memory"]


@pytest.mark.parametrize(("mode", "samples"), [("packed", "fresh"), ("cached", "frozen"), ("memory", "fresh")])
def test_a_run_broken_off_at_any_moment_ends_with_the_same_bytes_and_log(
    store: Path, tmp_path: Path, mode: str, samples: str
) -> None:
    def broken_run(name: str) -> RunConfig:
        return run_config(
            store,
            tmp_path / name,
            pack={"mode": mode, "window": 4},
            sampler={"samples": samples},
            trainer={"epochs": 3, "checkpoint_every": 4, "threads": 1, "device": "cpu"},
        )

    whole = broken_run("whole")
    fit(whole)
    for units in (1, 9, 17, 29):  # batches sampled, packed or trained on
        run = broken_run(f"broken-{units}")
        with pytest.raises(InterruptedTrainingError):
            fit(run, progress=BreakOff(units))
        fit(run)
        assert state_bytes(run) == state_bytes(whole)
        assert untimed(run) == untimed(whole)


class Messages(SilentProgress):
    """Keeps what is said in lines."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def test_a_training_that_goes_on_says_from_where(store: Path, tmp_path: Path) -> None:
    first, second = Messages(), Messages()
    fit(run_config(store, tmp_path / "out", trainer={"epochs": 2, "keep": "last"}), progress=first)
    fit(run_config(store, tmp_path / "out", trainer={"epochs": 4, "keep": "last"}), progress=second)
    assert not [line for line in first.said if "going on" in line]
    assert "going on from batch 14 of 28" in second.said


def test_more_epochs_continue_a_finished_run(store: Path, tmp_path: Path) -> None:
    def run(epochs: int, name: str) -> RunConfig:
        return run_config(store, tmp_path / name, trainer={"epochs": epochs, "keep": "last", "threads": 1})

    fit(run(2, "grown"))
    grown = fit(run(4, "grown"))
    assert grown.epochs == 4
    assert len(grown.epoch_s) == 4
    fit(run(4, "whole"))
    first, second = (
        load_checkpoint(list_checkpoints(tmp_path / name / "checkpoints")[-1]) for name in ("grown", "whole")
    )
    assert all(torch.equal(tensor, second.weights[name]) for name, tensor in first.weights.items())


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trainer": {"lr": 0.5}}, r"trainer\.lr 0\.01 -> 0\.5"),
        ({"trainer": {"epochs": 2}}, r"trainer\.epochs 3 -> 2"),
        ({"model": {"name": "gat", "hidden": 16}}, r"model\.hidden 8 -> 16; model\.name 'sage' -> 'gat'"),
        ({"sampler": {"seed": 5}}, r"sampler\.seed 0 -> 5"),
    ],
)
def test_a_folder_of_another_run_is_refused_by_what_differs_and_left_alone(
    store: Path, tmp_path: Path, sections: dict[str, Any], message: str
) -> None:
    run = run_config(store, tmp_path / "out")
    fit(run)
    before = state_bytes(run)
    with pytest.raises(StaleArtefactError, match=f"step-00000021 was made by another run.*{message}.*--overwrite"):
        fit(run_config(store, tmp_path / "out", **sections))
    assert state_bytes(run) == before


def test_overwrite_trains_anew_in_a_folder_of_another_run(store: Path, tmp_path: Path) -> None:
    fit(run_config(store, tmp_path / "out", sampler={"seed": 1}, trainer={"epochs": 5, "lr": 0.5}))
    run = run_config(store, tmp_path / "out")
    result = fit(run, overwrite=True)
    clean = run_config(store, tmp_path / "clean")
    fit(clean)
    assert not result.skipped
    assert state_bytes(run) == state_bytes(clean)
    assert untimed(run) == untimed(clean)


def test_a_folder_trained_on_another_store_is_refused(store: Path, tmp_path: Path) -> None:
    fit(run_config(store, tmp_path / "out"))
    other = tiny_store(tmp_path, seed=1)
    with pytest.raises(StaleArtefactError, match=r"store \w{12} -> \w{12}"):
        fit(run_config(other, tmp_path / "out"))


def test_several_labels_per_node_train_with_f1_scores(tmp_path: Path) -> None:
    y = (np.arange(200)[:, None] % np.array([2, 3, 5]) == 0).astype(np.uint8)
    run = run_config(labelled_store(tmp_path, y), tmp_path / "out", trainer={"epochs": 6, "lr": 0.05, "threads": 1})
    result = fit(run)
    assert set(result.val) == {"loss", "micro_f1", "macro_f1"}
    assert result.history[-1].train["loss"] < result.history[0].train["loss"]


@pytest.mark.parametrize("columns", [1, 2])
def test_values_train_by_regression(tmp_path: Path, columns: int) -> None:
    y = np.stack([np.arange(200) / 200, np.arange(200) / 100], axis=1).astype(np.float32)[:, :columns].squeeze()
    run = run_config(
        labelled_store(tmp_path, y),
        tmp_path / "out",
        task={"type": "node_regression"},
        model={"dropout": 0.0, "hidden": 16},
        trainer={"epochs": 40, "lr": 0.02, "threads": 1},
    )
    result = fit(run)
    assert set(result.val) == {"loss", "mae", "rmse", "r2"}
    assert result.val["r2"] > 0.8  # the value follows from the node's own features


def test_a_store_without_training_nodes_is_refused(tmp_path: Path) -> None:
    run = run_config(tiny_store(tmp_path, splits=False), tmp_path / "out")
    with pytest.raises(InputError, match="no 'node' node is in the train split"):
        fit(run)


def test_without_validation_nodes_the_last_weights_are_chosen(tmp_path: Path) -> None:
    split = np.where(np.arange(200) < 50, 1, 3).astype(np.uint8)
    result = fit(run_config(labelled_store(tmp_path, np.arange(200) % 4, split), tmp_path / "out"))
    assert (result.best_epoch, result.val) == (None, {})


def test_a_task_that_does_not_fit_the_labels_is_refused_and_nothing_is_written(store: Path, tmp_path: Path) -> None:
    run = run_config(store, tmp_path / "out", task={"type": "node_regression"})
    with pytest.raises(ConfigError, match="node_regression needs values"):
        fit(run)
    assert not run.out.exists()


def test_a_missing_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="does not exist; expected a graphsys store"):
        fit(run_config(tmp_path / "none.gs", tmp_path / "out"))


def test_float16_on_a_cpu_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float16, which needs a GPU"):
        fit(run_config(store, tmp_path / "out", trainer={"precision": "float16", "device": "cpu"}))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        fit(run_config(store, tmp_path / "out", trainer={"device": "cuda"}))


def test_a_user_module_in_pyg_style_trains(store: Path, tmp_path: Path) -> None:
    model = {"class": "torch_geometric.nn:GraphSAGE", "kwargs": {"act": "elu"}, "hidden": 8}
    result = fit(run_config(store, tmp_path / "out", model=model))
    assert result.epochs == 3


def test_a_user_class_that_changed_since_its_checkpoint_is_refused(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch_geometric.nn as library

    model = {"class": "torch_geometric.nn:GraphSAGE", "hidden": 8}
    fit(run_config(store, tmp_path / "out", model=model))
    monkeypatch.setattr(library, "GraphSAGE", library.GCN)
    with pytest.raises(StaleArtefactError, match=r"does not fit the model.*its code has changed"):
        fit(run_config(store, tmp_path / "out", model=model, trainer={"epochs": 4}))


DGL_MODULE = """
from dgl.nn import SAGEConv
from torch import nn

class Net(nn.Module):
    def __init__(self, in_channels, hidden_channels, out_channels, num_layers):
        super().__init__()
        widths = [in_channels] + [hidden_channels] * (num_layers - 1) + [out_channels]
        self.convs = nn.ModuleList(SAGEConv(*pair, "mean") for pair in zip(widths, widths[1:]))

    def forward(self, blocks, x):
        for conv, block in zip(self.convs, blocks):
            x = conv(block, x)
        return x
"""


def test_a_user_module_in_dgl_style_trains(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dgl")
    (tmp_path / "their_dgl_net.py").write_text(DGL_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    model = {"class": "their_dgl_net:Net", "style": "dgl", "hidden": 8}
    result = fit(run_config(store, tmp_path / "out", model=model, trainer={"epochs": 2, "threads": 1}))
    assert result.epochs == 2


@pytest.mark.parametrize(("samples", "left"), [("fresh", False), ("frozen", True)])
def test_a_training_that_stops_early_leaves_no_fresh_window(
    store: Path, tmp_path: Path, samples: str, left: bool
) -> None:
    trainer = {"epochs": 50, "patience": 1, "lr": 1e-9, "threads": 1, "device": "cpu"}
    run = run_config(store, tmp_path / "out", trainer=trainer, sampler={"samples": samples})
    assert fit(run).epochs < 50
    assert RunFolder(run.out).windows("train").exists() == left
