"""What frozen samples and smaller rows cost in accuracy, on two public graphs and a generated one.

Trains every graph out of core, in packed windows, with fresh and with frozen samples and with every row codec, and
evaluates exactly; prints mean and standard deviation of the test accuracy over the seeds as a Markdown table, and how
far each codec moves the features: the root mean square of the change over that of the features.

    .venv/bin/python benchmarks/accuracy.py --data FOLDER --work FOLDER

``--data`` holds ``cora.npz`` (Planetoid split) and ``minesweeper.npz`` (ten splits as masks, of which the first is
used); a file that is not there is left out and said to be. ``--json`` prints one object instead.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from graphsys.core.config import RunConfig, parse_run
from graphsys.core.units import MIB
from graphsys.storage.codec import CODECS, roundtrip
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.generate import generate
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec
from graphsys.storage.store import Store
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit

VARIANTS = tuple((samples, codec) for samples in ("fresh", "frozen") for codec in CODECS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """One graph and how it is trained on."""

    name: str
    store: Path
    sampler: dict[str, Any]
    model: dict[str, Any]
    trainer: dict[str, Any]

    def run(self, out: Path, samples: str, codec: str, seed: int) -> RunConfig:
        """Return one run."""
        return parse_run(
            {
                "store": str(self.store),
                "out": str(out),
                "memory": "512MiB",
                "sampler": {**self.sampler, "samples": samples, "seed": seed},
                "pack": {"mode": "packed", "codec": codec},
                "model": self.model,
                "trainer": {**self.trainer, "seed": seed, "threads": 1, "device": "cpu"},
            }
        )


def graphs(data: Path, work: Path) -> Iterator[Graph]:
    """Import the graphs that are at hand."""
    if (data / "cora.npz").is_file():
        yield Graph(
            name="Cora, GCN",
            store=import_npz(data / "cora.npz", work / "cora.gs", normalize=True),
            sampler={"fanouts": [10, 10], "batch_size": 140},
            model={"name": "gcn", "hidden": 64, "dropout": 0.8},
            trainer={"epochs": 60, "lr": 0.02, "weight_decay": 5e-4, "eval_every": 4},
        )
    if (data / "minesweeper.npz").is_file():
        yield Graph(
            name="minesweeper, GraphSAGE",
            store=import_npz(first_split(data / "minesweeper.npz", work), work / "minesweeper.gs", normalize=False),
            sampler={"fanouts": [8, 8, 8], "batch_size": 1024},
            model={"name": "sage", "hidden": 64, "num_layers": 3, "dropout": 0.2},
            trainer={"epochs": 20, "lr": 0.01, "eval_every": 4},
        )
    # Every feature is a mean plus noise, so no codec but float32 keeps a row; little homophily leaves room for errors.
    spec = GenerateSpec(nodes=20_000, edges=320_000, features=32, classes=16, homophily=0.4, signal=1.0)
    generate(work / "generated", spec)
    yield Graph(
        name="generated, 20 k nodes, GraphSAGE",
        store=import_raw(work / "generated", work / "generated.gs"),
        sampler={"fanouts": [5, 5], "batch_size": 512},
        model={"name": "sage", "hidden": 32, "dropout": 0.2},
        trainer={"epochs": 15, "lr": 0.003, "eval_every": 3},
    )


def import_npz(path: Path, store: Path, *, normalize: bool) -> Path:
    """Import an .npz file."""
    options = ImportOptions(memory=256 * MIB, normalize="row" if normalize else "none")
    import_graph(open_source(path, SourceSpec()), store, options)
    return store


def import_raw(folder: Path, store: Path) -> Path:
    """Import a generated folder."""
    import_graph(open_source(folder, SourceSpec()), store, ImportOptions(memory=256 * MIB))
    return store


def first_split(path: Path, work: Path) -> Path:
    """Write a copy of ``path`` with the first of its splits as index arrays."""
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays if not name.endswith("_masks")}
        for name in ("train", "val", "test"):
            content[name] = np.flatnonzero(arrays[f"{name}_masks"][0])
    out = work / path.name
    np.savez(out, **content)
    return out


def change(graph: Graph, codec: str) -> float:
    """Return how far a codec moves the features: root mean square of the change over that of the features."""
    store = Store.open(graph.store)
    array = store.features(store.node_type(None).name)
    moved = total = 0.0
    for start, rows in array.blocks(4096):
        stored = rows.copy()
        roundtrip(stored, codec, node=np.arange(start, start + rows.shape[0]))
        moved += float(np.square(stored - rows, dtype=np.float64).sum())
        total += float(np.square(rows, dtype=np.float64).sum())
    return math.sqrt(moved / total)


def accuracies(graph: Graph, samples: str, codec: str, seeds: int) -> list[float]:
    """Return the exact test accuracy of every seed."""
    found = []
    for seed in range(seeds):
        with TemporaryDirectory(dir=graph.store.parent) as out:
            run = graph.run(Path(out) / "run", samples, codec, seed)
            fit(run)
            found.append(evaluate(run).metrics["test"]["accuracy"])
        print(f"{graph.name}: {samples} {codec} seed {seed}: {found[-1]:.4f}", file=sys.stderr)
    return found


def table(results: dict[str, dict[str, list[float]]]) -> str:
    """Return the results as a Markdown table."""
    columns = [f"{samples}, {codec}" for samples, codec in VARIANTS]
    rows = {
        name: [
            f"{100 * statistics.mean(found[key]):.2f} +- {100 * statistics.pstdev(found[key]):.2f}" for key in columns
        ]
        for name, found in results.items()
    }
    return markdown(columns, rows)


def markdown(columns: Sequence[str], rows: dict[str, list[str]]) -> str:
    """Return a Markdown table with one row per graph."""
    lines = [f"| graph | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())])


def main() -> None:
    """Train, evaluate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of cora.npz and minesweeper.npz")
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs, some 100 MB")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    for name in ("cora.npz", "minesweeper.npz"):
        if not (options.data / name).is_file():
            print(f"{options.data / name} is absent and left out", file=sys.stderr)
    options.work.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=options.work) as work:
        results, moved = {}, {}
        for graph in graphs(options.data, Path(work)):
            results[graph.name] = {
                f"{kind}, {codec}": accuracies(graph, kind, codec, options.seeds) for kind, codec in VARIANTS
            }
            moved[graph.name] = {codec: change(graph, codec) for codec in CODECS}
    if options.json:
        print(json.dumps({"accuracy": results, "change": moved}))
    else:
        changes = {name: [f"{found[codec]:.1e}" for codec in CODECS] for name, found in moved.items()}
        print(f"{table(results)}\n\n{markdown(CODECS, changes)}")


if __name__ == "__main__":
    main()
