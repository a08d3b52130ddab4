"""A run whose training is done: a final checkpoint with drawn weights, no training needed."""

from pathlib import Path
from typing import Any

import torch

from graphsys.core.config import RunConfig, parse_run
from graphsys.storage.manifest import Manifest
from graphsys.storage.store import Store
from graphsys.trainers.checkpoint import KIND, checkpoint_path, save_checkpoint
from graphsys.trainers.model_factory import build_network
from graphsys.trainers.objective import resolve_objective
from graphsys.trainers.resume import training_parents
from graphsys.trainers.run_folder import RunFolder, training_identity


def make_run(store: Path, out: Path, **sections: Any) -> RunConfig:
    """Return a run of two layers on ``store``; ``sections`` replace whole sections or top-level keys."""
    tree: dict[str, Any] = {
        "store": str(store),
        "out": str(out),
        "memory": "64MiB",
        "sampler": {"fanouts": [3, 3], "batch_size": 16},
        "model": {"name": "sage", "hidden": 8, "dropout": 0.5},
        "trainer": {"epochs": 2, "threads": 1, "device": "cpu"},
    }
    return parse_run({**tree, **sections})


def train_nothing(run: RunConfig, *, seed: int = 0, step: int = 1) -> None:
    """Leave a final checkpoint of drawn weights in the run's folder."""
    store = Store.open(run.store)
    info = store.node_type(run.task.node_type)
    model = build_network(run, info.num_features, resolve_objective(run.task, info).num_outputs)
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(tensor.shape, generator=generator) / 4 for name, tensor in model.state_dict().items()}
    manifest = Manifest(
        kind=KIND,
        config=training_identity(run),
        parents=training_parents(run, store),
        content={"step": step, "epoch": 1, "final": True, "chosen": "last"},
    )
    save_checkpoint(checkpoint_path(RunFolder(run.out).checkpoints, step), {"model": weights}, manifest)
