"""How good the gradient of a pipeline is: what each of its three techniques does, against the exact gradient.

Trains a deep network on Cora with strategy ``pipeline`` in one process, without dropout, so that weights and histories
are those of a training. Then, at weights that stand still, takes the gradient of many orders of the chunks and compares
it with that of the whole graph. Prints three Markdown tables:

- *orders*: the snapshot is exact, so what is left is what the order hides. Bias and cosine of the mean over orders, the
  error of one order, and that of the order of an epoch without shuffling; with and without the x2 of gradients.
- *layers*: the same bias for each layer's matrices. Behind the last layer's no aggregation follows, behind those of the
  one before it one, and so on: the longer the paths, the more crossings between chunks are possible.
- *snapshots*: the order stands still, and the snapshot is that of training with each ``refresh``. The staleness is the
  gradient with this snapshot less that with an exact one, over the last epochs of the training.

    .venv/bin/python benchmarks/pipeline_gradients.py --data FOLDER [--network gcnii] [--layers 8] [--chunks 16]

All norms are over the exact gradient's. The training is of the most chunks given, the same weights serve for fewer, and
all snapshots come from this one training: of each ``refresh``, a pipeline goes along that sees the same weights and
orders. ``--json`` prints one object instead.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

import torch
from deep_problems import Problem, cora
from history_gradients import AVERAGED, NEVER, Measured, Staleness, measure

from graphsys.trainers.device import exact_torch

NETWORKS = ("gcnii", "deep_sage")


def tables(found: Sequence[Measured]) -> str:
    """Return all results as Markdown tables."""
    return "\n\n".join([orders_table(found), *(layers_table(one) for one in found), snapshots_table(found)])


def orders_table(found: Sequence[Measured]) -> str:
    """Return what the orders are worth."""
    head = ("network", "chunks (edges cut)", "rescaled", "orders", "bias of the mean", "its length", "its cosine")
    tail = ("error; cosine of one order", f"error of {AVERAGED}", "error; cosine unshuffled")
    rows = [
        [
            title(one),
            f"{of.chunks} ({one.cut[of.chunks]:.1%})",
            "x2" if of.rescale else "no",
            "all" if of.all_orders else str(of.orders),
            f"{of.bias:.3f}",
            f"{of.length:.3f}",
            f"{of.cosine:.4f}",
            f"{of.one_order:.3f}; {of.one_order_cosine:.4f}",
            f"{of.averaged:.3f}",
            f"{of.unshuffled:.3f}; {of.unshuffled_cosine:.4f}",
        ]
        for one in found
        for of in one.orders
    ]
    return markdown([*head, *tail], rows)


def layers_table(one: Measured) -> str:
    """Return the bias of each layer's matrices."""
    names = list(one.orders[0].layer_bias)
    rows = [
        [str(of.chunks), "x2" if of.rescale else "no", *(f"{of.layer_bias[name]:.3f}" for name in names)]
        for of in one.orders
    ]
    return f"{title(one)}, bias of\n\n" + markdown(["chunks", "rescaled", *names], rows)


def snapshots_table(found: Sequence[Measured]) -> str:
    """Return what the snapshots do."""
    head = (
        "network",
        "refresh",
        "messages' error",
        "gradient's error by age in epochs",
        "mean",
        "moves",
        "error of mean",
    )
    rows = [
        [
            title(one),
            "never" if of.refresh == NEVER else str(of.refresh),
            f"{min(of.messages):.3f}-{max(of.messages):.3f}",
            by_age(of),
            f"{fmean(of.error):.3f}",
            f"{fmean(of.moved):.3f}",
            f"{of.mean_error:.3f}",
        ]
        for one in found
        for of in one.staleness
    ]
    return markdown(head, rows)


def by_age(of: Staleness) -> str:
    """Return the mean error at some ages of a snapshot, from the least to the most."""
    ages = sorted(set(of.age))
    shown = sorted({ages[round(part * (len(ages) - 1))] for part in (0, 0.25, 0.5, 0.75, 1)})
    errors = {age: [error for at, error in zip(of.age, of.error, strict=True) if at == age] for age in shown}
    return ", ".join(f"{age}: {fmean(found):.3f}" for age, found in errors.items())


def title(one: Measured) -> str:
    """Return a network's name and depth."""
    return f"{one.network}, {one.layers} layers"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def still_problem(problem: Problem, network: str, layers: int, *, epochs: int, lr: float) -> Problem:
    """Return a problem with another network and without dropout."""
    model = {"name": network, "num_layers": layers, "dropout": 0.0}
    return replace(
        problem,
        model=problem.model.model_copy(update=model),
        trainer=problem.trainer.model_copy(update={"epochs": epochs, "lr": lr}),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Folder of the public graphs.")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="Only this one; may be repeated.")
    parser.add_argument("--layers", type=int, action="append", help="Depth, 4 and 8 by default; may be repeated.")
    parser.add_argument("--chunks", type=int, action="append", help="4 and 16 by default; may be repeated.")
    parser.add_argument("--epochs", type=int, default=60, help="Epochs of the training.")
    parser.add_argument("--lr", type=float, default=0.01, help="Its learning rate.")
    parser.add_argument("--orders", type=int, default=24, help="Orders of the chunks, at most.")
    parser.add_argument("--threads", type=int, default=1, help="Torch threads.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    args = parser.parse_args()
    found = []
    with exact_torch(torch.device("cpu"), args.threads):
        whole = cora(args.data, 0)
        for network, layers in itertools.product(args.network or NETWORKS, args.layers or (4, 8)):
            problem = still_problem(whole, network, layers, epochs=args.epochs, lr=args.lr)
            found.append(measure(problem, chunks=sorted(args.chunks or (4, 16)), orders=args.orders))
            print(found[-1], file=sys.stderr, flush=True)
    print(json.dumps([asdict(one) for one in found]) if args.json else tables(found))


if __name__ == "__main__":
    main()
