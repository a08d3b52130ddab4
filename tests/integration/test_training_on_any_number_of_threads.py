"""The same weights, bit by bit, on one, two or three threads."""

from pathlib import Path

import pytest
import torch
from helpers.training import TensorBatch, memory_graph, run_config, sampled
from torch import Tensor

from graphsys.trainers.device import exact_torch
from graphsys.trainers.model_factory import build_model
from graphsys.trainers.objective import SingleLabel
from graphsys.trainers.state import new_state
from graphsys.trainers.step import Setting, train_step

CPU = torch.device("cpu")
NUM_FEATURES = 150


@pytest.fixture(scope="module")
def batches() -> list[TensorBatch]:
    # Large enough for every loop and matrix product to be split.
    graph = memory_graph(num_nodes=6000, num_pairs=30_000, num_features=NUM_FEATURES)
    return [sampled(graph, range(first, first + 1024), [10, 10], batch_id=first) for first in (0, 1024)]


def trained(name: str, batches: list[TensorBatch], threads: int) -> dict[str, Tensor]:
    run = run_config(Path("s.gs"), Path("out"), model={"name": name, "hidden": 96, "dropout": 0.5})
    setting = Setting(config=run.trainer, objective=SingleLabel(3), device=CPU)
    with exact_torch(CPU, threads):
        state = new_state(build_model(run, NUM_FEATURES, 3), run.trainer, CPU)
        for batch in batches * 2:
            train_step(state, batch, setting)
    return dict(state.model.state_dict())


@pytest.mark.parametrize("name", ["sage", "gcn", "gat", "gin"])
def test_the_weights_after_training_do_not_depend_on_the_threads(name: str, batches: list[TensorBatch]) -> None:
    expected = trained(name, batches, 1)
    for threads in (2, 3):
        found = trained(name, batches, threads)
        assert [key for key, value in expected.items() if not torch.equal(value, found[key])] == []
