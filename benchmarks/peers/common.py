"""What all peers share: options, the store's arrays, timing, the JSON line. Needs numpy only.

A peer reads a graphsys store as docs/format/store.md says: every array is a run of raw rows at the front of one file.
It runs as ``python -m peers.NAME`` in the folder ``benchmarks`` and prints one JSON line: ``rounds`` (edges per second
of sampling, seconds per epoch of loading and training, milliseconds per step), and how they were taken.
"""

import argparse
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

WARM_BATCHES = 3
ROUNDS = 3


@dataclass(frozen=True)
class Options:
    task: str  # sample, load, step, epoch
    store: Path
    fanouts: list[int]
    batch_size: int
    threads: int
    hidden: int
    seconds: float
    cache: float  # share of the feature rows kept in memory
    library: str  # whose step


def options() -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", choices=["sample", "load", "step", "epoch"], required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--fanouts", type=lambda text: [int(part) for part in text.split(",")], required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--hidden", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--cache", type=float, default=0.0)
    parser.add_argument("--library", default="")
    return Options(**vars(parser.parse_args()))


class StoreArrays:
    """The arrays of a store with one node type and one edge type."""

    def __init__(self, path: Path) -> None:
        self.path = path
        manifest = json.loads((path / "manifest.json").read_text())
        self._arrays = manifest["arrays"]
        (self.node_type,) = manifest["content"]["node_types"]
        self._edge_type = next(name for name in self._arrays if name.startswith("topology/")).split("/")[1]
        self.num_classes: int = manifest["content"]["node_types"][self.node_type]["num_classes"]

    def file(self, name: str) -> Path:
        return self.path / name / ("c/0/0" if len(self.shape(name)) == 2 else "c/0")

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._arrays[name]["shape"])

    def read(self, name: str, dtype: npt.DTypeLike) -> Array:
        """Read a whole array into memory and let its page cache go: it must not be charged twice."""
        count = int(np.prod(self.shape(name)))
        path = self.file(name)
        rows = np.fromfile(path, self._arrays[name]["dtype"], count).reshape(self.shape(name))
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return rows.astype(dtype, copy=False)

    def topology(self) -> tuple[Array, Array]:
        """Return indptr [N + 1] and indices [E], int64."""
        base = f"topology/{self._edge_type}"
        return self.read(f"{base}/indptr", np.int64), self.read(f"{base}/indices", np.int64)

    @property
    def features(self) -> str:
        return f"nodes/{self.node_type}/x"

    @property
    def dim(self) -> int:
        return self.shape(self.features)[1]

    def mapped_features(self) -> Array:
        """Map x [N, D] float32 without the kernel's read-ahead, which would read far more than is asked for.

        The map is private and writable, since torch warns of arrays that are not; nothing writes to it.
        """
        rows, dim = self.shape(self.features)
        with self.file(self.features).open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        pages.madvise(mmap.MADV_RANDOM)
        return np.frombuffer(pages, np.float32, rows * dim).reshape(rows, dim)

    def labels(self) -> Array:
        return self.read(f"nodes/{self.node_type}/y", np.int64)

    def train_nodes(self) -> Array:
        return np.flatnonzero(self.read(f"nodes/{self.node_type}/split", np.uint8) == 1).astype(np.int64)


@dataclass(frozen=True)
class Count:
    """What one batch held."""

    nodes: int
    edges: int


def seed_batches(nodes: Array, batch_size: int) -> Iterator[Array]:
    """Yield the seeds of epoch after epoch, each in an order of its own, without end."""
    generator = np.random.default_rng(0)
    while True:
        order = generator.permutation(nodes)
        for start in range(0, order.shape[0], batch_size):
            yield order[start : start + batch_size]


def measure_batches(
    made: Options, num_seeds: int, batches: Iterator[Count], about: Callable[[], dict[str, Any]], *, burst: int = 1
) -> None:
    """Time batches for about ``made.seconds`` and print the line; epochs are scaled from the mean of a batch.

    ``about`` is asked at the end for what else is worth knowing. ``burst`` batches may lie ready at once, made by
    workers beforehand: a round has no fewer, lest it be the time to take one that was ready, or to wait for all.
    """
    per_epoch = -(-num_seeds // made.batch_size)
    for _ in range(max(WARM_BATCHES, burst)):
        next(batches)
    counts: list[Count] = []
    ends = [time.perf_counter()]
    while len(counts) < ROUNDS * burst or ends[-1] - ends[0] < made.seconds:
        counts.append(next(batches))
        ends.append(time.perf_counter())
    rounds = []
    for part in np.array_split(np.arange(len(counts)), ROUNDS):
        seconds = ends[part[-1] + 1] - ends[part[0]]
        edges = sum(counts[index].edges for index in part)
        rounds.append(edges / seconds if made.task == "sample" else seconds / len(part) * per_epoch)
    report(
        rounds,
        batches=len(counts),
        batches_per_epoch=per_epoch,
        scaled=len(counts) < per_epoch,
        nodes_per_batch=float(np.mean([count.nodes for count in counts])),
        edges_per_batch=float(np.mean([count.edges for count in counts])),
        **about(),
    )


def report(rounds: list[float], **about: Any) -> None:
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    print(json.dumps({"rounds": rounds, **about, "peak_rss_bytes": peak}), flush=True)
