"""How accurate deep networks on whole graphs are: GCNII on Cora, a deep GraphSAGE on minesweeper.

Trains each network with several seeds, stops early by validation, and prints mean and standard deviation of the test
metrics over the seeds as a Markdown table, one row per way of running the network.

    .venv/bin/python benchmarks/deep_accuracy.py --data FOLDER [--problem cora] [--seeds 5] [--way whole] [--lr 0.03]

``--data`` holds ``cora.npz`` (Planetoid split) and ``minesweeper.npz`` (ten splits as masks; seed i takes split i). A
way of running is a function of a problem and a seed, listed in ``WAYS``: ``whole`` is plain autograd over the whole
graph, ``pipeline`` the strategy of that name, with 16 chunks in one process (the number of stages changes no bit of
it), and the others leave one of its techniques out. ``--epochs`` without ``--patience`` runs them all, and takes the
epoch of the best validation. ``--json`` prints one object instead.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deep_problems import PROBLEMS, Problem
from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.classification import binary_auroc

from graphsys.core.config import TrainerConfig
from graphsys.core.seeding import derive_key
from graphsys.core.types import Topology
from graphsys.models.layered import LayeredModel
from graphsys.models.whole_graph import forward_whole
from graphsys.trainers.device import exact_torch
from graphsys.trainers.model_factory import build_layered_model
from graphsys.trainers.objective import SingleLabel
from graphsys.trainers.optimizer import new_optimizer
from graphsys.trainers.pipeline.assemble import GraphData, assemble
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.links import Links
from graphsys.trainers.pipeline.partition import split_graph
from graphsys.trainers.pipeline.runtime import Runtime
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.stage_cut import equal_cut

CHUNKS = 16  # of a pipeline of four stages
_WAIT_S = 600.0  # for another process, of which there is none


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


def train_whole(problem: Problem, seed: int) -> Outcome:
    """Train in one process on the whole graph at once, with plain autograd."""
    train = problem.split["train"]
    model = _network(problem, seed)
    optimizer = new_optimizer(model.named_parameters(), problem.trainer)

    def run_epoch(epoch: int) -> None:
        torch.manual_seed(derive_key(seed, epoch + 1))
        model.train()
        optimizer.zero_grad(set_to_none=True)
        outputs = forward_whole(model, problem.x, problem.indptr, problem.indices)
        torch.autograd.backward([functional.cross_entropy(outputs[train], problem.y[train])])
        optimizer.step()

    return _train(problem, model, run_epoch, seed)


def train_pipeline(problem: Problem, seed: int, *, chunks: int = CHUNKS, **techniques: Any) -> Outcome:
    """Train with strategy ``pipeline`` in one process; ``techniques`` are settings of the trainer."""
    runtime = pipeline(problem, seed, chunks=chunks, **techniques)
    if chunks > 1:
        runtime.run_exactly(into_snapshot=True)
    return _train(problem, runtime.stage.model, lambda epoch: runtime.run_epoch(epoch).loss, seed)


def pipeline(problem: Problem, seed: int, *, chunks: int, **techniques: Any) -> Runtime:
    """Return one process that runs all layers over all chunks."""
    shape = Shape(stages=1, ways=1, slots=chunks)
    topology = Topology(
        indptr=problem.indptr.numpy(), indices=problem.indices.numpy(), num_src_nodes=problem.x.shape[0]
    )
    model = _network(problem, seed)
    return assemble(
        model,
        GraphData(
            topology=topology, x=problem.x.numpy(), y=problem.y.numpy(), train=problem.split["train"].sort()[0].numpy()
        ),
        ChunkTable.of(split_graph(topology, ways=1, slots=chunks, seed=seed), ways=1, slots=chunks),
        Links(shape, 0, _WAIT_S),
        cut=equal_cut(model.num_layers, 1),
        objective=SingleLabel(int(problem.y.max()) + 1),
        config=problem.trainer.model_copy(update={"seed": seed, **techniques}),
    )


def _network(problem: Problem, seed: int) -> LayeredModel:
    return build_layered_model(problem.model, problem.x.shape[1], int(problem.y.max()) + 1, seed=seed)


def _train(problem: Problem, model: LayeredModel, run_epoch: Callable[[int], object], seed: int) -> Outcome:
    trainer = problem.trainer
    best: Outcome | None = None
    seconds, epoch = 0.0, 0
    for epoch in range(1, trainer.epochs + 1):
        start = time.perf_counter()
        run_epoch(epoch - 1)
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


WAYS: dict[str, Callable[[Problem, int], Outcome]] = {
    "whole": train_whole,
    "pipeline": train_pipeline,
    "unshuffled": partial(train_pipeline, shuffle_chunks=False),
    "snapshot of every epoch": partial(train_pipeline, refresh=1),
    "not rescaled": partial(train_pipeline, rescale=False),
    "none of the three": partial(train_pipeline, shuffle_chunks=False, refresh=1, rescale=False),
}


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


def changed(problem: Problem, args: argparse.Namespace) -> Problem:
    """Return the problem with the settings that were given."""
    settings = {name: getattr(args, name) for name in ("epochs", "patience", "lr", "eval_every", "refresh")}
    kept = {} if args.epochs is None else {"patience": None}
    given = {name: value for name, value in settings.items() if value is not None}
    layers = {} if args.layers is None else {"num_layers": args.layers}
    return replace(
        problem,
        model=problem.model.model_copy(update=layers),
        trainer=TrainerConfig(**{**problem.trainer.model_dump(), **kept, **given}),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder of the public graphs.")
    parser.add_argument("--problem", choices=PROBLEMS, action="append", help="Only this one; may be repeated.")
    parser.add_argument("--way", choices=WAYS, action="append", help="Only this one; may be repeated.")
    parser.add_argument("--seeds", type=int, default=5, help="Trainings per problem and way.")
    parser.add_argument("--first", type=int, default=0, help="First seed.")
    parser.add_argument("--epochs", type=int, help="Epochs of a training; without patience unless it is given.")
    parser.add_argument("--patience", type=int, help="Validations without improvement that end a training.")
    parser.add_argument("--lr", type=float, help="Learning rate.")
    parser.add_argument("--layers", type=int, help="Layers of the network.")
    parser.add_argument("--eval-every", type=int, help="Epochs between validations.")
    parser.add_argument("--refresh", type=int, help="Epochs between snapshots.")
    parser.add_argument("--threads", type=int, default=1, help="Torch threads.")
    parser.add_argument("--json", action="store_true", help="Print every training as one JSON object.")
    args = parser.parse_args()
    results: dict[tuple[str, str], list[Outcome]] = {}
    with exact_torch(torch.device("cpu"), args.threads):
        for name in args.problem or PROBLEMS:
            for way in args.way or WAYS:
                for seed in range(args.first, args.first + args.seeds):
                    outcome = WAYS[way](changed(PROBLEMS[name](args.data, seed), args), seed)
                    print(f"{name}, {way}: {outcome}", file=sys.stderr, flush=True)
                    results.setdefault((name, way), []).append(outcome)
    if args.json:
        print(json.dumps({f"{name}, {way}": [asdict(o) for o in found] for (name, way), found in results.items()}))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
