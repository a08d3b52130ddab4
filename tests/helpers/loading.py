"""Windows of made-up batches, and stores whose feature rows hold their node's id."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphsys.core.types import Features, NodeIds, SampledBatch
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.window import WindowHeader, WindowWriter


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
