"""One training step in memory, on the CPU: ours beside PyG's and DGL's, on the same batches and threads.

    .venv/bin/python benchmarks/step.py --store graph.gs --model sage --threads 2

Without ``--store`` a power-law graph of 1 M nodes and 16 M edges is made in memory. Batches are sampled before; a step
is forward, loss, backward and Adam. The contenders take turns on every batch. Prints one JSON line.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import step_peers
import torch

from graphsys.core.types import BatchKey, NodeIds, Topology
from graphsys.models.gat import GAT
from graphsys.models.gcn import GCN
from graphsys.models.sage import GraphSAGE
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.storage.store import Store
from graphsys.trainers.batch import MiniBatch

NUM_OUTPUTS = 47

Taken = tuple[float, float]  # seconds by the clock, and of the processor: the latter stand still while others run


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """What one measurement runs."""

    model: str = "sage"
    fanouts: tuple[int, ...] = (10, 10, 10)
    batch_size: int = 1024
    num_features: int = 128
    hidden: int = 128
    threads: int = 2
    batches: int = 5
    rounds: int = 3  # passes over the batches, after one that is not counted
    peers: tuple[str, ...] = ("pyg", "dgl")


def measure(topology: Topology, seeds: NodeIds, spec: StepSpec) -> dict[str, Any]:
    """Return the seconds of a step, ours and the peers': medians over the batches and rounds.

    Args:
        topology: The graph.
        seeds: [*] nodes to draw batches from.
        spec: What to run.
    """
    torch.set_num_threads(spec.threads)
    torch.manual_seed(0)
    batches = sample_batches(topology, seeds, spec)
    contenders, missing = _contenders(spec)
    seconds: dict[str, list[Taken]] = {name: [] for name in contenders}
    for turn in range(spec.rounds + 1):
        for batch in batches:
            for name, contender in contenders.items():
                taken = _timed(contender, batch)
                if turn:
                    seconds[name].append(taken)
    return _summary(seconds, missing, batches, spec)


def sample_batches(topology: Topology, seeds: NodeIds, spec: StepSpec) -> list[MiniBatch]:
    """Return batches with random features: their values do not change the time a step takes."""
    rng = np.random.default_rng(0)
    made = []
    for batch_id in range(spec.batches):
        chosen = rng.choice(seeds, spec.batch_size, replace=False).astype(np.int64)
        key = BatchKey(seed=0, epoch=0, batch_id=batch_id)
        sampled = sample_neighbors(topology, chosen, spec.fanouts, key=key, with_degree=True)
        x = rng.standard_normal((len(sampled.node), spec.num_features), np.float32)
        y = rng.integers(0, NUM_OUTPUTS, spec.batch_size)
        made.append(MiniBatch.assemble(sampled, x, y, epoch=0))
    return made


def ours(name: str, widths: step_peers.Widths, num_layers: int) -> step_peers.Contender:
    """Return our step."""
    kinds: dict[str, Callable[..., torch.nn.Module]] = {"sage": GraphSAGE, "gcn": GCN, "gat": GAT}
    module = kinds[name](*widths, num_layers)
    return step_peers.Contender(prepare=lambda batch: batch, step=step_peers.trained(module, module))


def power_law_topology(num_nodes: int = 1_000_000, num_edges: int = 16_000_000) -> Topology:
    """Return a graph in memory whose sources follow a power law."""
    rng = np.random.default_rng(0)
    indptr = np.concatenate([[0], np.sort(rng.integers(0, num_edges + 1, num_nodes - 1)), [num_edges]])
    indices = (num_nodes * rng.random(num_edges, np.float32) ** 2).astype(np.int32) % num_nodes
    return Topology(indptr=indptr, indices=indices, num_src_nodes=num_nodes)


def _contenders(spec: StepSpec) -> tuple[dict[str, step_peers.Contender], list[str]]:
    makers = {"pyg": step_peers.pyg, "dgl": step_peers.dgl}
    shape = (spec.model, (spec.num_features, spec.hidden, NUM_OUTPUTS), len(spec.fanouts))
    found, missing = {"graphsys": ours(*shape)}, []
    for name in spec.peers:
        try:
            found[name] = makers[name](*shape)
        except ImportError:
            missing.append(name)
    return found, missing


def _timed(contender: step_peers.Contender, batch: MiniBatch) -> Taken:
    assert batch.y is not None
    prepared = contender.prepare(batch)
    wall, cpu = time.perf_counter(), time.process_time()
    contender.step(prepared, batch.y)
    return time.perf_counter() - wall, time.process_time() - cpu


def _summary(
    seconds: dict[str, list[Taken]], missing: Sequence[str], batches: Sequence[MiniBatch], spec: StepSpec
) -> dict[str, Any]:
    median = {name: statistics.median(wall for wall, _ in taken) for name, taken in seconds.items()}
    own = median.pop("graphsys")
    walls = [wall for wall, _ in seconds["graphsys"]]
    return {
        "name": f"step-{spec.model}",
        "value": round(own, 4),
        "unit": "s",
        "spread": [round(min(walls), 4), round(max(walls), 4)],
        "peers": {name: round(value, 4) for name, value in median.items()},
        "missing": list(missing),
        "ratio": round(min(median.values()) / own, 3) if median else None,
        "cpu_s": {name: round(statistics.median(cpu for _, cpu in taken), 4) for name, taken in seconds.items()},
        "nodes": round(statistics.mean(batch.x.shape[0] for batch in batches)),
        "edges": round(statistics.mean(batch.indices.shape[0] for batch in batches)),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "config": asdict(spec),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    spec = StepSpec()
    parser.add_argument("--store", type=Path, help="graph to sample; default: one made in memory")
    parser.add_argument("--model", choices=["sage", "gcn", "gat"], default=spec.model)
    parser.add_argument("--fanouts", default=",".join(map(str, spec.fanouts)))
    for name in ("batch_size", "num_features", "hidden", "threads", "batches", "rounds"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(spec, name))
    parser.add_argument("--peers", default=",".join(spec.peers), help="pyg, dgl or nothing")
    return parser.parse_args()


def main() -> None:
    options = vars(_arguments())
    store = options.pop("store")
    for name, kind in (("fanouts", int), ("peers", str)):
        options[name] = tuple(kind(part) for part in options[name].split(",") if part)
    if store is None:
        topology = power_law_topology()
        seeds = np.arange(topology.num_nodes)
    else:
        graph = Store.open(store)
        info = graph.node_type()
        topology = graph.topology(graph.edge_type_within(info.name))
        seeds = graph.split(info.name, "train")
    print(json.dumps(measure(topology, seeds, StepSpec(**options))))


if __name__ == "__main__":
    main()
