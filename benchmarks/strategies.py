"""What a network on a whole graph costs spread over processes: seconds, bytes, waiting and memory, side by side.

Trains a deep network for a few epochs with every shape of S stages, W ways and K chunks, each of its processes on one
thread (``--threads``), joined by gloo on this machine, and prints a Markdown table. Stops with an error where the bytes
that were counted at the send calls are not those of the formulas.

    .venv/bin/python benchmarks/strategies.py --store GRAPH.gs --work FOLDER [--layers 8] [--shape 4x1x16]

A digest of the weights that training ended with shows which shapes train the same, bit by bit. ``--forecast 16``
prints the bytes that the formulas give for a network of another depth, and their ratio. ``--json`` prints one object.
"""

import argparse
import hashlib
import json
import multiprocessing as mp
import statistics
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import FileStore

from graphsys.core.config import RunConfig, parse_run
from graphsys.core.machine import cores
from graphsys.core.progress import SILENT
from graphsys.core.units import MIB
from graphsys.storage.manifest import open_sealed_json
from graphsys.storage.run_file import CUT_NAME
from graphsys.storage.run_log import LOG_NAME, read_lines
from graphsys.storage.store import Store
from graphsys.trainers.checkpoint import final_checkpoint, load_checkpoint
from graphsys.trainers.model_factory import build_layered_model
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.kept import load_kernels
from graphsys.trainers.pipeline.network import GraphSplit, NetworkShape
from graphsys.trainers.pipeline.partition_file import ensure_partition
from graphsys.trainers.pipeline.planning import split_of
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.slots import ideal_bubble
from graphsys.trainers.pipeline.stage_cut import StageCut
from graphsys.trainers.pipeline.stage_memory import stage_memory
from graphsys.trainers.pipeline.traffic import TrafficForecast, forecast_traffic
from graphsys.trainers.pipeline.worker import train_worker
from graphsys.trainers.run_folder import RunFolder

SHAPES = ("1x1x1", "1x4x4", "4x1x16", "2x2x16")
_NAMES = {(False, False): "single", (False, True): "graph parallel", (True, False): "pipeline", (True, True): "hybrid"}
_LIMIT_S = 600.0  # of a training, and of any wait in it
_SAMPLE_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one shape came to."""

    name: str
    stages: int
    ways: int
    chunks: int
    layers: int
    epoch_s: float  # median without the first epoch
    sent: dict[str, int]  # bytes of an epoch by purpose, counted
    foretold: dict[str, int]  # likewise, by the formulas
    mirrors: int
    bubble: float  # (S - 1) / (T + S - 1) of the slots
    waiting: float  # share of the processes' turns that they waited, in the last epoch
    memory: list[int]  # bytes of each stage's largest process beyond the interpreter's
    memory_foretold: list[int]
    weights: str  # digest


def run_config(args: argparse.Namespace, shape: Shape, out: Path, layers: int) -> RunConfig:
    """Return the run of one shape; the last epoch validates, which its seconds leave out."""
    return parse_run(
        {
            "store": str(args.store),
            "out": str(out),
            "memory": "16GiB",
            "model": {"name": args.model, "hidden": args.hidden, "num_layers": layers, "dropout": 0.5},
            "trainer": {
                "strategy": "pipeline",
                "epochs": args.epochs,
                "eval_every": args.epochs,
                "threads": args.threads,
                "device": "cpu",
                "keep": "last",
            },
            "cluster": {"stages": shape.stages, "ways": shape.ways, "chunks": shape.num_chunks, "timeout": _LIMIT_S},
        }
    )


def measure_shape(args: argparse.Namespace, shape: Shape, layers: int) -> Measured:
    """Train with one shape and compare the bytes with the formulas."""
    with TemporaryDirectory(dir=args.work) as work:
        run = run_config(args, shape, Path(work) / "run", layers)
        store = Store.open(run.store)
        topology = store.topology(store.edge_type_within(store.node_type().name))
        table = ensure_partition(run, shape, topology, store.fingerprint, SILENT)
        memory = train_on_processes(run, shape, Path(work))
        lines = [line for line in read_lines(RunFolder(run.out).logs / LOG_NAME) if line["kind"] == "epoch"]
        digest = weights_digest(run)
        cut = StageCut(bounds=tuple(open_sealed_json(run.out / CUT_NAME)["bounds"]))
    network, split = describe(run, store, table)
    sent = [{name: int(count) for name, count in line["pipeline"]["bytes_sent"].items()} for line in lines]
    foretold = forecast(network, split, shape)
    expected = {"boundary": foretold.boundary, "exchange": foretold.exchange, "reduce": foretold.reduce}
    if any(epoch != expected for epoch in sent):
        raise SystemExit(f"{shape}: {sent} bytes were sent in the epochs, and the formulas say {expected}")
    busy, wait = (sum(lines[-1]["pipeline"][name]) for name in ("busy_s", "wait_s"))
    return Measured(
        name=_NAMES[shape.stages > 1, shape.ways > 1],
        stages=shape.stages,
        ways=shape.ways,
        chunks=shape.num_chunks,
        layers=layers,
        epoch_s=statistics.median([line["seconds"] for line in lines][1:] or [lines[0]["seconds"]]),
        sent=sent[-1],
        foretold=expected,
        mirrors=sum(split.mirrors),
        bubble=ideal_bubble(shape.stages, shape.slots),
        waiting=wait / (busy + wait),
        memory=[max(memory[rank] for rank in shape.stage_ranks(stage)) for stage in range(shape.stages)],
        memory_foretold=[stage_memory(network, split, cut.layers(stage)).total for stage in range(shape.stages)],
        weights=digest,
    )


def describe(run: RunConfig, store: Store, table: ChunkTable) -> tuple[NetworkShape, GraphSplit]:
    """Return what the formulas must know of the network and of the graph in parts."""
    info = store.node_type()
    topology = store.topology(store.edge_type_within(info.name))
    model = build_layered_model(run.model, info.num_features, info.num_classes, seed=run.trainer.seed)
    return NetworkShape.of(model, info.num_features), split_of(topology, table)


def forecast(network: NetworkShape, split: GraphSplit, shape: Shape) -> TrafficForecast:
    """Return the bytes of an epoch by the formulas."""
    return forecast_traffic(
        num_nodes=split.num_nodes,
        stages=shape.stages,
        mirrors=sum(split.mirrors),
        ways=shape.ways,
        row_channels=network.row_channels,
        message_channels=network.message_channels,
        weights=sum(network.layer_weights),
    )


def weights_digest(run: RunConfig) -> str:
    """Return the first digits of the SHA-256 of the weights that a training ended with."""
    digest = hashlib.sha256()
    for name, weight in sorted(load_checkpoint(final_checkpoint(run.out)).weights.items()):
        digest.update(name.encode() + weight.numpy().tobytes())
    return digest.hexdigest()[:12]


def train_on_processes(run: RunConfig, shape: Shape, work: Path) -> list[int]:
    """Train; return the most bytes of each process, by rank."""
    context = mp.get_context("spawn")
    members = [context.Process(target=member, args=(run, shape, rank, work)) for rank in range(shape.world_size)]
    try:
        for process in members:
            process.start()
        for process in members:
            process.join(_LIMIT_S)
        codes = [process.exitcode for process in members]
    finally:
        for process in members:
            process.kill()
    if any(codes):
        raise SystemExit(f"{shape}: the processes ended with {codes}, where 0 is success; see above")
    return [int((work / f"memory-{rank}").read_text()) for rank in range(shape.world_size)]


def member(run: RunConfig, shape: Shape, rank: int, work: Path) -> None:
    """Be one process of a training."""
    if shape.world_size > 1:
        store = FileStore(str(work / "rendezvous"), shape.world_size)
        limit = timedelta(seconds=_LIMIT_S)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=shape.world_size, timeout=limit)
    info = Store.open(run.store).node_type()
    model = build_layered_model(run.model, info.num_features, info.num_classes, seed=run.trainer.seed)
    load_kernels(model, info.num_features)
    with most_memory() as peak:
        train_worker(run, rank=rank, world_size=shape.world_size)
    (work / f"memory-{rank}").write_text(str(peak[0]))
    if shape.world_size > 1:
        dist.destroy_process_group()


@contextmanager
def most_memory() -> Iterator[list[int]]:
    """Give a list whose one entry, afterwards, is the most private memory that the block took, in bytes."""
    before, most, done = private_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            most[0] = max(most[0], private_bytes() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield most
    done.set()
    thread.join()


def private_bytes() -> int:
    """Return the resident memory of this process that is no mapped file."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def table_of(found: list[Measured]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| strategy | S x W x K | layers | s/epoch | bytes sent (reduce) | bubble | waiting | largest process by stage "
        "| foretold | weights |",
        "|---" * 10 + "|",
    ]
    for one in found:
        sent = one.sent["boundary"] + one.sent["exchange"]
        cells = [
            one.name,
            f"{one.stages} x {one.ways} x {one.chunks}",
            str(one.layers),
            f"{one.epoch_s:.3g}",
            f"{sent:,} ({one.sent['reduce']:,})",
            f"{100 * one.bubble:.1f} %",
            f"{100 * one.waiting:.0f} %",
            ", ".join(f"{size / MIB:,.0f}" for size in one.memory) + " MiB",
            ", ".join(f"{size / MIB:,.0f}" for size in one.memory_foretold) + " MiB",
            f"`{one.weights}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def forecasts(args: argparse.Namespace) -> dict[str, Any]:
    """Return by depth the bytes of a pipeline and of graph parallelism on four processes, by the formulas alone."""
    shapes = {"pipeline": Shape(stages=4, ways=1, slots=16), "graph_parallel": Shape(stages=1, ways=4, slots=1)}
    store = Store.open(args.store)
    topology = store.topology(store.edge_type_within(store.node_type().name))
    found = {}
    with TemporaryDirectory(dir=args.work) as work:
        for layers in args.forecast:
            totals = {}
            for name, shape in shapes.items():
                run = run_config(args, shape, Path(work) / name, layers)
                table = ensure_partition(run, shape, topology, store.fingerprint, SILENT)  # the second depth finds it
                totals[name] = forecast(*describe(run, store, table), shape).total
            found[str(layers)] = {**totals, "ratio": totals["graph_parallel"] / totals["pipeline"]}
    return found


def parse_shape(text: str) -> Shape:
    """Return the shape SxWxK."""
    stages, ways, chunks = (int(part) for part in text.split("x"))
    return Shape(stages=stages, ways=ways, slots=chunks // ways)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="An imported graph with labels.")
    parser.add_argument("--work", type=Path, required=True, help="Folder for runs, which are removed.")
    parser.add_argument("--shape", action="append", help="SxWxK: stages, ways, chunks; may be repeated.")
    parser.add_argument("--model", default="gcnii", help="Network of layers.")
    parser.add_argument("--hidden", type=int, default=64, help="Its width.")
    parser.add_argument("--layers", type=int, action="append", help="Its depth, 8 by default; may be repeated.")
    parser.add_argument("--threads", type=int, default=1, help="Torch threads of each process.")
    parser.add_argument("--epochs", type=int, default=3, help="Epochs; the first one's seconds are left out.")
    parser.add_argument("--forecast", type=int, action="append", default=[], help="Only foretell bytes at this depth.")
    parser.add_argument("--json", action="store_true", help="Print one JSON object.")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.forecast:
        print(json.dumps(forecasts(args), indent=1))
        return
    found = []
    for layers in args.layers or [8]:
        for text in args.shape or SHAPES:
            found.append(measure_shape(args, parse_shape(text), layers))
            print(found[-1], file=sys.stderr, flush=True)
    print(json.dumps({"cores": cores(), "shapes": [asdict(one) for one in found]}) if args.json else table_of(found))


if __name__ == "__main__":
    main()
