"""``benchmarks/pipeline_gradients.py`` says what the techniques of a pipeline do to its gradient."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from deep_problems import Problem
from helpers.topologies import topology_of
from history_gradients import NEVER, Measured, Orders, measure
from pipeline_gradients import main, tables

from graphsys.core.config import ModelConfig, TrainerConfig


def toy_problem(*, num_layers: int, lr: float = 0.05, epochs: int = 3) -> Problem:
    """Return a random graph of 40 nodes that is one piece, with labels by its nodes' features."""
    rng = np.random.default_rng(2)
    src, dst = np.concatenate([rng.integers(0, 40, (2, 60)), [np.arange(40), (np.arange(40) + 1) % 40]], axis=1)
    topology = topology_of(np.concatenate([src, dst]), np.concatenate([dst, src]), 40)
    x = torch.from_numpy(rng.standard_normal((40, 5), np.float32))
    return Problem(
        x=x,
        indptr=torch.from_numpy(topology.indptr),
        indices=torch.from_numpy(topology.indices),
        y=x[:, :3].argmax(dim=1),
        split={"train": torch.arange(0, 40, 2), "val": torch.arange(1, 40, 4), "test": torch.arange(3, 40, 4)},
        model=ModelConfig(name="gcnii", hidden=8, num_layers=num_layers, dropout=0.0),
        trainer=TrainerConfig(epochs=epochs, lr=lr),
        selection="loss",
    )


def both(measured: Measured) -> tuple[Orders, Orders]:
    """Return what was found with and without gradients that count twice."""
    rescaled, plain = measured.orders
    assert rescaled.rescale
    assert not plain.rescale
    return rescaled, plain


@pytest.mark.parametrize("network", ["gcnii", "deep_sage"])
def test_with_one_chunk_every_variant_has_the_exact_gradient(network: str) -> None:
    problem = toy_problem(num_layers=3)
    model = problem.model.model_copy(update={"name": network})
    found = measure(replace(problem, model=model), chunks=[1], orders=4)
    for of in found.orders:
        assert max(of.bias, of.one_order, of.unshuffled, *of.layer_bias.values()) < 1e-5
        assert of.cosine == pytest.approx(1.0, abs=1e-5)
    assert [max(of.error) < 1e-5 for of in found.staleness] == [True] * 4
    assert found.cut == {1: 0.0}


def test_over_all_orders_rescaling_takes_the_bias_off_paths_that_cross_once() -> None:
    rescaled, plain = both(measure(toy_problem(num_layers=1), chunks=[3], orders=10))
    assert rescaled.all_orders
    assert rescaled.orders == 6
    assert rescaled.bias < 1e-5
    assert plain.bias > 0.01
    assert rescaled.length == pytest.approx(1.0, abs=1e-5)
    assert min(rescaled.one_order, rescaled.unshuffled) > 0.01  # a single order has an error nevertheless


def test_longer_paths_keep_a_bias_and_the_layers_behind_them_none() -> None:
    rescaled, plain = both(measure(toy_problem(num_layers=3), chunks=[4], orders=24))
    assert max(rescaled.layer_bias[name] for name in ("layers.1", "layers.2", "decoder")) < 1e-5
    assert min(rescaled.layer_bias["encoder"], rescaled.layer_bias["layers.0"]) > 1e-3
    assert max(plain.layer_bias["layers.2"], plain.layer_bias["decoder"]) < 1e-5
    assert plain.layer_bias["layers.1"] > 1e-3


def test_snapshots_of_weights_that_stand_still_are_not_stale_and_others_are() -> None:
    still = measure(toy_problem(num_layers=2, lr=1e-12), chunks=[3], orders=2)
    assert max(max(of.error + of.messages) for of in still.staleness) < 1e-5
    moving = {of.refresh: of for of in measure(toy_problem(num_layers=2, epochs=6), chunks=[3], orders=2).staleness}
    assert moving[1].age == [0, 1, 1, 1, 1, 1]
    assert moving[5].age == [0, 1, 2, 3, 4, 1]
    assert moving[NEVER].age == [0, 1, 2, 3, 4, 5]
    assert moving[NEVER].messages[0] < 1e-5
    assert moving[NEVER].messages[-1] > 0.01


def test_the_script_prints_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_as_cora(toy_problem(num_layers=2), tmp_path / "cora.npz")
    options = ["--network", "gcnii", "--layers", "2", "--chunks", "2", "--epochs", "2"]
    monkeypatch.setattr(sys, "argv", ["pipeline_gradients.py", "--data", str(tmp_path), *options])
    main()
    printed = capsys.readouterr().out
    assert printed.count("| gcnii, 2 layers |") == 2 + 4
    assert "| never |" in printed
    assert tables([]).startswith("| network |")


def save_as_cora(problem: Problem, path: Path) -> None:
    """Write a problem's graph as Cora's file has it."""
    nodes, channels = problem.x.shape
    destination = np.repeat(np.arange(nodes), problem.indptr.diff().numpy())
    np.savez(
        path,
        edge_index=np.stack([problem.indices.numpy(), destination]),
        y=problem.y.numpy(),
        x_indptr=np.arange(0, nodes * channels + 1, channels),
        x_indices=np.tile(np.arange(channels), nodes),
        x_data=problem.x.abs().numpy().ravel(),
        x_shape=np.array([nodes, channels]),
        train=problem.split["train"].numpy(),
        val=problem.split["val"].numpy(),
        test=problem.split["test"].numpy(),
    )
