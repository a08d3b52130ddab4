"""Small graphs for tests; row i of every array holds values derived from i, so that answers are visible."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphsys.core.types import Features, NodeIds
from graphsys.core.units import MIB
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import homogeneous

MEMORY = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyGraph:
    """A random graph whose in- and out-degrees follow a power law."""

    edge_index: NodeIds  # [2, E]
    x: Features  # [N, D] x[i, j] = i + j / 1024, exact in float32 for N <= 8192 and D <= 1024
    y: NodeIds  # [N] i % num_classes
    split: npt.NDArray[np.uint8]  # [N] 1 train (half), 2 val (a quarter), 3 test


def tiny_graph(
    *, num_nodes: int = 200, num_edges: int = 1600, num_features: int = 8, num_classes: int = 4, seed: int = 0
) -> TinyGraph:
    """Return the same graph for the same arguments; it has a few self-loops and repeated edges."""
    rng = np.random.default_rng(seed)
    rank = rng.permutation(num_nodes)  # so that hubs are not the lowest ids
    ends = rank[(num_nodes * rng.random((2, num_edges)) ** 2).astype(np.int64)]
    split = np.array([1, 1, 2, 3], np.uint8)[rng.permutation(num_nodes) % 4]
    node = np.arange(num_nodes)
    return TinyGraph(
        edge_index=ends,
        x=(node[:, None] + np.arange(num_features) / 1024).astype(np.float32),
        y=node % num_classes,
        split=split,
    )


def tiny_store(
    folder: Path,
    *,
    num_nodes: int = 200,
    num_edges: int = 1600,
    num_features: int = 8,
    num_classes: int = 4,
    seed: int = 0,
    splits: bool = True,
    undirected: bool = False,
    name: str = "tiny.gs",
) -> Path:
    """Import :func:`tiny_graph` into ``folder / name``; return the store's path."""
    graph = tiny_graph(
        num_nodes=num_nodes, num_edges=num_edges, num_features=num_features, num_classes=num_classes, seed=seed
    )
    source = homogeneous(
        graph.edge_index, num_nodes=num_nodes, x=graph.x, y=graph.y, split=graph.split if splits else None
    )
    out = folder / name
    import_graph(source, out, ImportOptions(memory=MEMORY, undirected=undirected))
    return out
