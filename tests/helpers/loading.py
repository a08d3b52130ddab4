"""Windows of made-up batches, and stores whose feature rows hold their node's id."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from graphsys.core.config import RunConfig, parse_run
from graphsys.core.progress import SILENT
from graphsys.core.types import Features, LoaderCursor, NodeIds, SampledBatch
from graphsys.core.units import MIB
from graphsys.samplers.schedule import Schedule
from graphsys.storage.codec import row_nbytes
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.store import Store
from graphsys.storage.window import WindowHeader, WindowWriter
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.loader import Loader
from graphsys.trainers.plan import Mode, PackPlan
from graphsys.trainers.rows import open_reader
from graphsys.trainers.run_folder import RunFolder
from graphsys.trainers.windows import WindowSet

MEMORY = 64 * MIB
START = LoaderCursor(epoch=0, next_batch_id=0)


class CountingTask:
    """Adds up what a stage says it has done."""

    def __init__(self) -> None:
        self.done = 0.0

    def advance(self, amount: float = 1) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        pass


def id_rows(num_nodes: int, dim: int) -> Features:
    """Return [N, D] where row i holds i, and i + 0.5 in its last column."""
    rows = np.repeat(np.arange(num_nodes, dtype=np.float32)[:, None], dim, axis=1)
    rows[:, -1] += 0.5
    return rows


def flat(folder: Path, rows: Features) -> FlatArray:
    """Write ``rows`` as a flat array and open it."""
    return FlatArray(folder, write_array(folder, rows))


def star(batch_id: int, node: NodeIds, num_seeds: int = 1) -> SampledBatch:
    """Return a batch of one hop in which the first seed has all other nodes as in-neighbours."""
    others = node.shape[0] - num_seeds
    return SampledBatch(
        epoch=0,
        batch_id=batch_id,
        node=node,
        indptr=np.array([0] + [others] * num_seeds, np.int32),
        indices=np.arange(num_seeds, node.shape[0], dtype=np.int32),
        num_sampled_nodes=(num_seeds, others),
        num_sampled_edges=(others,),
    )


def write_samples(path: Path, trace: Sequence[NodeIds]) -> None:
    """Write a window of samples with one star per entry of ``trace``; the label of a seed is its id."""
    header = WindowHeader(window_index=3, first_position=70, num_batches=len(trace), num_hops=1, fingerprint="abc")
    with WindowWriter(path, header=header) as writer:
        for index, node in enumerate(trace):
            writer.add(star(index, node), y=node[:1])
        writer.close()


def random_trace(num_batches: int, num_nodes: int, size: int, seed: int = 0) -> list[NodeIds]:
    """Return batches of distinct ids, low ids more often than high ones."""
    rng = np.random.default_rng(seed)
    draws = [(num_nodes * rng.random(2 * size) ** 2).astype(np.int64) for _ in range(num_batches)]
    return [rng.permutation(np.unique(draw))[:size] for draw in draws]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A small run over a store, with everything that a loader needs."""

    run: RunConfig
    store: Store
    schedule: Schedule
    plan: PackPlan
    split: str = "train"

    @property
    def features(self) -> FlatArray:
        return self.store.features("node")

    @property
    def folder(self) -> Path:
        return RunFolder(self.run.out).windows(self.split)

    def windows(self, *, overwrite: bool = False) -> WindowSet:
        topology = self.store.topology(("node", "to", "node"))
        return WindowSet(
            self.run, self.store, self.schedule, self.plan, split=self.split, topology=topology, with_degree=True,
            overwrite=overwrite,
        )  # fmt: skip

    def batches(self, cursor: LoaderCursor = START, *, threads: int = 2) -> list[MiniBatch]:
        """Open everything, and return all batches from ``cursor`` on; prepared as a run does it."""
        position = cursor.epoch * self.schedule.batches_per_epoch + cursor.next_batch_id
        with self.windows() as windows, closing(open_reader(self.features, self.plan, memory=MEMORY)) as reader:
            windows.prepare(SILENT, position // self.plan.window_batches)
            return list(Loader(windows, self.features, reader, cursor=cursor, threads=threads))


def scene(
    store: Path,
    out: Path,
    *,
    mode: Mode = "packed",
    samples: Literal["fresh", "frozen"] = "fresh",
    epochs: int = 2,
    window_batches: int = 3,
    num_slots: int = 40,
    codec: str = "float32",
    threads: int = 1,
    batch_size: int = 16,
    seed: int = 0,
    look_ahead: int = 2,
) -> Scene:
    """Return a run with fanouts [3, 2] on a store of :func:`helpers.graphs.tiny_store`."""
    sampler = {"fanouts": [3, 2], "batch_size": batch_size, "samples": samples, "seed": seed, "threads": threads}
    run = parse_run({"store": str(store), "out": str(out), "memory": MEMORY, "sampler": sampler})
    opened = Store.open(store)
    schedule = Schedule(
        nodes=opened.split("node", "train"), batch_size=batch_size, seed=seed, epochs=epochs, samples=samples
    )
    cached = mode in ("packed", "cached")
    plan = PackPlan(
        mode=mode,
        window_batches=window_batches,
        num_windows=schedule.num_windows(window_batches),
        num_slots=num_slots if cached else 0,
        codec=codec,
        row_nbytes=row_nbytes(opened.node_type("node").num_features, codec),
        read_ahead=3,
        max_nodes=200,
        max_edges=400,
        working_bytes=0,
        producer_bytes=16 * MIB,
        disk_bytes=0,
        look_ahead=min(look_ahead, window_batches) if cached else 0,
        reason="chosen by a test",
    )
    return Scene(run=run, store=opened, schedule=schedule, plan=plan)


def same(one: MiniBatch, other: MiniBatch) -> bool:
    """Whether two batches agree bit for bit."""
    places = [(batch.epoch, batch.batch_id, batch.num_sampled_nodes, batch.num_sampled_edges) for batch in (one, other)]
    return places[0] == places[1] and all(
        _bits(getattr(one, name)) == _bits(getattr(other, name))
        for name in ("x", "indptr", "indices", "y", "n_id", "in_degree", "edge_index")
    )


def _bits(tensor: Tensor | None) -> tuple[object, ...] | None:
    return None if tensor is None else (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes())


def same_runs(one: Sequence[MiniBatch], other: Sequence[MiniBatch]) -> bool:
    """Whether two runs of batches agree bit for bit."""
    return len(one) == len(other) and all(map(same, one, other))
