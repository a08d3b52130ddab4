"""Check graphsys on a machine with a GPU: the same run on both devices, each precision, exact resume, and its speed.

    python benchmarks/gpu_check.py --out docs/benchmarks

Writes ``gpu-check.json`` and ``gpu-check.md`` into the folder, and ends with code 1 when a check fails.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch

import graphsys
from graphsys.core.config import RunConfig, parse_run
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.generate import generate
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec
from graphsys.trainers.checkpoint import load_checkpoint
from graphsys.trainers.demo_data import digits_source
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit
from graphsys.trainers.result import TrainResult

MEMORY = 4 << 30
MODELS = ("sage", "gcn", "gat", "gin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report."""

    name: str
    found: str
    expected: str
    passed: bool


def run_of(store: Path, out: Path, **sections: dict[str, Any]) -> RunConfig:
    """Return a run over ``store``; each keyword adds to the section of the run file that it names."""
    defaults: dict[str, dict[str, Any]] = {
        "sampler": {"fanouts": [10, 10], "batch_size": 256},
        "pack": {"mode": "packed", "host_cache": "10%"},
        "model": {"hidden": 64},
        "trainer": {"epochs": 30, "lr": 0.01},
    }
    merged = {name: {**values, **sections.get(name, {})} for name, values in defaults.items()}
    return parse_run({"store": str(store), "out": str(out), "memory": MEMORY, **merged})


def losses(result: TrainResult) -> list[float]:
    """Return the training loss of each epoch."""
    return [record.train["loss"] for record in result.history]


def check_devices_agree(store: Path, folder: Path) -> list[Check]:
    """Train each model on both devices without dropout; the losses follow each other while rounding is small."""
    checks = []
    for model in MODELS:
        runs = {
            device: fit(
                run_of(
                    store,
                    folder / f"{model}-{device}",
                    model={"name": model, "dropout": 0.0},
                    trainer={"device": device, "epochs": 3},
                )
            )
            for device in ("cpu", "cuda")
        }
        pairs = zip(losses(runs["cpu"]), losses(runs["cuda"]), strict=True)
        worst = max(abs(a - b) / abs(a) for a, b in pairs)
        checks.append(
            Check(name=f"{model}: loss on both devices", found=f"{worst:.1e}", expected="<= 1e-3", passed=worst <= 1e-3)
        )
    return checks


def check_precisions(store: Path, folder: Path) -> list[Check]:
    """Train at each precision on the GPU; the exact test accuracy stays."""
    checks = []
    for precision in ("float32", "bfloat16", "float16"):
        for model in MODELS:
            run = run_of(
                store,
                folder / f"{model}-{precision}",
                model={"name": model},
                trainer={"device": "cuda", "precision": precision},
            )
            fit(run)
            accuracy = evaluate(run).metrics["test"]["accuracy"]
            name = f"{model}, {precision}: exact test accuracy on digits"
            checks.append(Check(name=name, found=f"{accuracy:.4f}", expected=">= 0.95", passed=accuracy >= 0.95))
    return checks


def check_resume(store: Path, folder: Path) -> list[Check]:
    """A run continued from a checkpoint ends with the very weights of one that was not interrupted."""
    checks = []
    for model in MODELS:

        def train(name: str, epochs: int, model: str = model) -> TrainResult:
            trainer = {"device": "cuda", "epochs": epochs, "keep": "last"}
            return fit(run_of(store, folder / f"{model}-{name}", model={"name": model}, trainer=trainer))

        straight = train("whole", 6)
        train("parts", 3)
        continued = train("parts", 6)
        first, second = (load_checkpoint(result.checkpoint).weights for result in (straight, continued))
        same = first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
        found = "bit-identical" if same else "different"
        checks.append(
            Check(name=f"{model}: resumed weights on the GPU", found=found, expected="bit-identical", passed=same)
        )
    return checks


def epoch_times(folder: Path) -> list[dict[str, Any]]:
    """Time epochs of GraphSAGE on a generated graph, by device and mode."""
    spec = GenerateSpec(nodes=500_000, edges=8_000_000, features=128, classes=16, seed=1, train=0.04, val=0.01)
    generate(folder / "raw", spec)
    store = folder / "graph.gs"
    import_graph(open_source(folder / "raw", SourceSpec()), store, ImportOptions(memory=MEMORY))
    rows = []
    for mode in ("memory", "packed", "direct"):
        for device in ("cpu", "cuda"):
            run = run_of(
                store,
                folder / f"time-{mode}-{device}",
                sampler={"fanouts": [10, 10, 10], "batch_size": 1024},
                pack={"mode": mode},
                model={"hidden": 128},
                trainer={"device": device, "epochs": 3, "eval_every": 3},
            )
            result = fit(run)
            train = result.stages["train"]
            rows.append(
                {
                    "mode": mode,
                    "device": device,
                    "epoch_s": [round(value, 3) for value in result.epoch_s],
                    "median_epoch_s": round(statistics.median(result.epoch_s), 3),
                    "loader": train.details.get("loader"),
                }
            )
    return rows


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    return {
        "gpu": torch.cuda.get_device_name(0),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "graphsys": graphsys.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def page(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = ["# GPU check", "", "Written by `make gpu-check`.", "", "| machine | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in report["machine"].items()]
    lines += ["", "| check | found | expected | |", "|---|---|---|---|"]
    lines += [
        f"| {check['name']} | {check['found']} | {check['expected']} | {'pass' if check['passed'] else 'FAIL'} |"
        for check in report["checks"]
    ]
    lines += [
        "",
        "GraphSAGE, 500 k nodes, 20 k of them for training, 8 M edges, 128 features, 3 layers, hidden 128,",
    ]
    lines += [
        "fresh samples; page cache as it comes.",
        "",
        "| mode | device | seconds per epoch | median |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['mode']} | {row['device']} | {', '.join(map(str, row['epoch_s']))} | {row['median_epoch_s']} |"
        for row in report["epochs"]
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that receives the report")
    out = parser.parse_args().out
    if not torch.cuda.is_available():
        sys.stderr.write("error: torch finds no GPU on this machine; run make gpu-check where there is one\n")
        return 2
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = folder / "digits.gs"
        import_graph(digits_source(), store, ImportOptions(memory=MEMORY))
        for part in (check_devices_agree, check_precisions, check_resume):
            started = time.perf_counter()
            checks += part(store, folder / part.__name__)
            sys.stderr.write(f"{part.__name__}: {time.perf_counter() - started:.1f} s\n")
        report = {"machine": machine(), "checks": [asdict(check) for check in checks], "epochs": epoch_times(folder)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu-check.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "gpu-check.md").write_text(page(report))
    sys.stdout.write(page(report))
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
