"""How accurate deep networks on whole graphs are: GCNII on Cora, a deep GraphSAGE on minesweeper.

Trains each network with several seeds, stops early by validation, and prints mean and standard deviation of the test
metrics over the seeds as a Markdown table, one row per way of running the network.

    .venv/bin/python benchmarks/deep_accuracy.py --data FOLDER [--problem cora] [--seeds 5] [--way whole]

``--data`` holds ``cora.npz`` (Planetoid split) and ``minesweeper.npz`` (ten splits as masks; seed i takes split i). A
way of running is a function of a problem and a seed, listed in ``WAYS``. ``--json`` prints one object instead.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc

from graphsys.core.config import ModelConfig, TrainerConfig
from graphsys.core.seeding import derive_key
from graphsys.models.layered import LayeredModel
from graphsys.models.whole_graph import forward_whole
from graphsys.trainers.device import exact_torch
from graphsys.trainers.model_factory import build_layered_model
from graphsys.trainers.optimizer import new_optimizer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """A graph with one split, and the network and training that suit it."""

    x: Tensor  # [N, D] float32
    indptr: Tensor  # [N + 1] int64
    indices: Tensor  # [E] int32 sources by destination
    y: Tensor  # [N] int64
    split: dict[str, Tensor]  # name -> node ids, int64
    model: ModelConfig
    trainer: TrainerConfig  # patience counts validations, of which there is one every eval_every epochs
    selection: str  # what the best epoch is chosen by: loss, accuracy or roc_auc on the validation nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one training came to."""

    seed: int
    val: float  # the selection at the best epoch
    accuracy: float  # of the test nodes at that epoch
    roc_auc: float | None  # likewise, of two classes
    best_epoch: int
    epochs: int
    epoch_s: float  # mean seconds of an epoch, validations left out


def cora(data: Path, split: int) -> Problem:
    """Return Cora with GCNII; the settings are those of the paper."""
    del split  # there is one
    with np.load(data / "cora.npz") as arrays:
        content = dict(arrays)
    x = dense_features(content)
    trainer = {"epochs": 1000, "lr": 0.01, "weight_decay": 5e-4, "layer_weight_decay": 0.01, "patience": 100}
    return Problem(
        **graph_of(content, x / x.sum(dim=1, keepdim=True).clamp(min=1)),
        split={name: torch.from_numpy(content[name]).long() for name in ("train", "val", "test")},
        model=ModelConfig(name="gcnii", hidden=64, num_layers=32, dropout=0.6, alpha=0.1, theta=0.5),
        trainer=TrainerConfig.model_validate(trainer),
        selection="loss",
    )


def minesweeper(data: Path, split: int) -> Problem:
    """Return minesweeper with a deep GraphSAGE."""
    with np.load(data / "minesweeper.npz") as arrays:
        content = dict(arrays)
    masks = {name: content[f"{name}_masks"][split] for name in ("train", "val", "test")}
    return Problem(
        **graph_of(content, dense_features(content)),
        split={name: torch.from_numpy(np.flatnonzero(mask)) for name, mask in masks.items()},
        model=ModelConfig(name="deep_sage", hidden=64, num_layers=8, dropout=0.2),
        trainer=TrainerConfig(epochs=300, lr=3e-3, eval_every=5, patience=20),
        selection="roc_auc",
    )


PROBLEMS: dict[str, Callable[[Path, int], Problem]] = {"cora": cora, "minesweeper": minesweeper}


def dense_features(content: dict[str, npt.NDArray[np.generic]]) -> Tensor:
    """Return the features [N, D] float32 of their sparse rows."""
    x = np.zeros(tuple(content["x_shape"].tolist()), np.float32)
    row = np.repeat(np.arange(x.shape[0]), np.diff(content["x_indptr"]))
    x[row, content["x_indices"]] = content["x_data"]
    return torch.from_numpy(x)


def graph_of(content: dict[str, npt.NDArray[np.generic]], x: Tensor) -> dict[str, Tensor]:
    """Return the in-edges by destination, the features and the labels, as :class:`Problem` takes them."""
    src, dst = content["edge_index"]
    order = np.lexsort((src, dst))
    degree = np.bincount(dst, minlength=x.shape[0])
    return {
        "x": x,
        "indptr": torch.from_numpy(np.concatenate([[0], degree.cumsum()])),
        "indices": torch.from_numpy(src[order].astype(np.int32)),
        "y": torch.from_numpy(content["y"].astype(np.int64)),
    }


def train_whole(problem: Problem, seed: int) -> Outcome:
    """Train in one process on the whole graph at once, with plain autograd."""
    trainer, train = problem.trainer, problem.split["train"]
    model = build_layered_model(problem.model, problem.x.shape[1], int(problem.y.max()) + 1, seed=seed)
    optimizer = new_optimizer(model.named_parameters(), trainer)
    best: Outcome | None = None
    seconds, epoch = 0.0, 0
    for epoch in range(1, trainer.epochs + 1):
        start = time.perf_counter()
        torch.manual_seed(derive_key(seed, epoch))
        model.train()
        optimizer.zero_grad(set_to_none=True)
        outputs = forward_whole(model, problem.x, problem.indptr, problem.indices)
        torch.autograd.backward([functional.cross_entropy(outputs[train], problem.y[train])])
        optimizer.step()
        seconds += time.perf_counter() - start
        if epoch % trainer.eval_every:
            continue
        found = evaluate(problem, model, seed=seed, epoch=epoch)
        if best is None or found.val > best.val:
            best = found
        elif trainer.patience is not None and epoch - best.best_epoch >= trainer.patience * trainer.eval_every:
            break
    assert best is not None, "there is a validation within the epochs"
    return Outcome(**{**asdict(best), "epochs": epoch, "epoch_s": seconds / epoch})


@torch.no_grad()
def evaluate(problem: Problem, model: LayeredModel, *, seed: int, epoch: int) -> Outcome:
    """Return the metrics of the model as it is, over all neighbours of every node."""
    model.eval()
    outputs = forward_whole(model, problem.x, problem.indptr, problem.indices)
    val, test = problem.split["val"], problem.split["test"]
    chosen = {
        "loss": lambda: -float(functional.cross_entropy(outputs[val], problem.y[val])),
        "accuracy": lambda: accuracy(outputs[val], problem.y[val]),
        "roc_auc": lambda: roc_auc(outputs[val], problem.y[val]),
    }
    return Outcome(
        seed=seed,
        val=chosen[problem.selection](),
        accuracy=accuracy(outputs[test], problem.y[test]),
        roc_auc=roc_auc(outputs[test], problem.y[test]) if outputs.shape[1] == 2 else None,
        best_epoch=epoch,
        epochs=epoch,
        epoch_s=0.0,
    )


def accuracy(outputs: Tensor, y: Tensor) -> float:
    """Return the share of rows whose largest output is that of their class."""
    return float((outputs.argmax(dim=1) == y).float().mean())


def roc_auc(outputs: Tensor, y: Tensor) -> float:
    """Return the area under the curve of the second class's odds; two classes."""
    return float(binary_auroc((outputs[:, 1] - outputs[:, 0]).sigmoid().double(), y))


WAYS: dict[str, Callable[[Problem, int], Outcome]] = {"whole": train_whole}


def table(results: dict[tuple[str, str], list[Outcome]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| problem | way | accuracy | ROC-AUC | best epoch | epochs | s/epoch |", "|---|---|---|---|---|---|---|"]
    for (problem, way), found in results.items():
        areas = [outcome.roc_auc for outcome in found if outcome.roc_auc is not None]
        cells = [
            percent([outcome.accuracy for outcome in found]),
            percent(areas) if areas else "",
            f"{statistics.mean(outcome.best_epoch for outcome in found):.0f}",
            f"{statistics.mean(outcome.epochs for outcome in found):.0f}",
            f"{statistics.mean(outcome.epoch_s for outcome in found):.3f}",
        ]
        lines.append(f"| {problem} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def percent(values: list[float]) -> str:
    """Return mean and standard deviation in percent."""
    return f"{100 * statistics.mean(values):.2f} +- {100 * statistics.pstdev(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder of the public graphs.")
    parser.add_argument("--problem", choices=PROBLEMS, action="append", help="Only this one; may be repeated.")
    parser.add_argument("--way", choices=WAYS, action="append", help="Only this one; may be repeated.")
    parser.add_argument("--seeds", type=int, default=5, help="Trainings per problem and way.")
    parser.add_argument("--first", type=int, default=0, help="First seed.")
    parser.add_argument("--threads", type=int, default=1, help="Torch threads.")
    parser.add_argument("--json", action="store_true", help="Print every training as one JSON object.")
    args = parser.parse_args()
    results: dict[tuple[str, str], list[Outcome]] = {}
    with exact_torch(torch.device("cpu"), args.threads):
        for name in args.problem or PROBLEMS:
            for way in args.way or WAYS:
                for seed in range(args.first, args.first + args.seeds):
                    outcome = WAYS[way](PROBLEMS[name](args.data, seed), seed)
                    print(f"{name}, {way}: {outcome}", file=sys.stderr)
                    results.setdefault((name, way), []).append(outcome)
    if args.json:
        print(json.dumps({f"{name}, {way}": [asdict(o) for o in found] for (name, way), found in results.items()}))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
