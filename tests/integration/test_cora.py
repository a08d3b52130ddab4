"""The claim on Cora: training out of core is as accurate as training in memory."""

import statistics
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers.public_data import public_graph
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GCNConv

from graphsys.core.config import RunConfig, parse_run
from graphsys.core.units import MIB
from graphsys.models.dropout import dropout
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec
from graphsys.trainers.device import exact_torch
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit

SEEDS = range(10)
HIDDEN, DROPOUT, LR, WEIGHT_DECAY, EPOCHS, EVAL_EVERY = 64, 0.8, 0.02, 5e-4, 60, 4

pytestmark = pytest.mark.data


def cora_run(store: Path, out: Path, seed: int) -> RunConfig:
    return parse_run(
        {
            "store": str(store),
            "out": str(out),
            "memory": "512MiB",
            "sampler": {"fanouts": [-1, -1], "batch_size": 140, "samples": "frozen", "seed": seed},
            "pack": {"mode": "packed"},
            "model": {"name": "gcn", "hidden": HIDDEN, "dropout": DROPOUT},
            "trainer": {
                "epochs": EPOCHS,
                "lr": LR,
                "weight_decay": WEIGHT_DECAY,
                "eval_every": EVAL_EVERY,
                "seed": seed,
                "threads": 1,
                "device": "cpu",
            },
        }
    )


class PlainGCN(nn.Module):
    """The same network on the whole graph, with PyG's own normalisation."""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.first = GCNConv(num_features, HIDDEN, cached=True)
        self.second = GCNConv(HIDDEN, num_classes, cached=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.first(dropout(x, p=DROPOUT, training=self.training), edge_index).relu()
        out: Tensor = self.second(dropout(x, p=DROPOUT, training=self.training), edge_index)
        return out


def in_memory_accuracy(arrays: dict[str, npt.NDArray[np.generic]], x: Tensor, seed: int) -> float:
    """Return the test accuracy of the epoch with the best validation."""
    y, edge_index = torch.from_numpy(arrays["y"]), torch.from_numpy(arrays["edge_index"])
    train, val, test = (torch.from_numpy(arrays[name]) for name in ("train", "val", "test"))
    torch.manual_seed(seed)
    model = PlainGCN(x.shape[1], 7)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    best, accuracy = (-1.0, 0.0), 0.0
    for epoch in range(EPOCHS):
        model.train()
        optimizer.zero_grad()
        torch.autograd.backward([functional.cross_entropy(model(x, edge_index)[train], y[train])])
        optimizer.step()
        if (epoch + 1) % EVAL_EVERY == 0:
            model.eval()
            with torch.no_grad():
                out = model(x, edge_index)
            hit = out.argmax(dim=1) == y
            rank = (float(hit[val].float().mean()), -float(functional.cross_entropy(out[val], y[val])))
            if rank > best:
                best, accuracy = rank, float(hit[test].float().mean())
    return accuracy


def dense_rows(arrays: dict[str, npt.NDArray[np.generic]]) -> Tensor:
    """Return the features [N, D], each row summing to one."""
    x = np.zeros(arrays["x_shape"], np.float32)
    row = np.repeat(np.arange(x.shape[0]), np.diff(arrays["x_indptr"]))
    x[row, arrays["x_indices"]] = arrays["x_data"]
    return torch.from_numpy(x / np.maximum(x.sum(axis=1, keepdims=True), 1))


def test_ten_seeds_on_cora_are_as_accurate_out_of_core_as_in_memory(tmp_path: Path) -> None:
    path = public_graph("cora.npz")
    import_graph(
        open_source(path, SourceSpec()), tmp_path / "cora.gs", ImportOptions(memory=256 * MIB, normalize="row")
    )
    ours = []
    for seed in SEEDS:
        run = cora_run(tmp_path / "cora.gs", tmp_path / f"run-{seed}", seed)
        fit(run)
        ours.append(evaluate(run).metrics["test"]["accuracy"])
    with np.load(path) as arrays, exact_torch(torch.device("cpu"), 1):
        content = dict(arrays)
        theirs = [in_memory_accuracy(content, dense_rows(content), seed) for seed in SEEDS]
    print(f"out of core {statistics.mean(ours):.4f}, in memory {statistics.mean(theirs):.4f}")
    assert statistics.mean(ours) >= 0.805
    assert abs(statistics.mean(ours) - statistics.mean(theirs)) <= 0.01
