"""The built-in real graph: handwritten digits that scikit-learn carries, joined to those that look most like them.

Source:
    scikit-learn's digits, a copy of the test set of UCI "Optical Recognition of Handwritten Digits" (Alpaydin, Kaynak
    1998): 1,797 images of 8 x 8 pixels, values 0 to 16.
"""

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from graphsys.core.seeding import shuffled
from graphsys.core.types import DEFAULT_NODE_TYPE, DEFAULT_RELATION, NodeIds
from graphsys.storage.memory_source import edge_table, graph_in_memory, node_table
from graphsys.storage.sources import GraphSource

NEIGHBOURS = 8
TRAIN, VAL = 0.6, 0.2  # shares within every class; the rest is test
_BLOCK = 256  # images compared with all others at a time


def digits_source(*, neighbours: int = NEIGHBOURS) -> GraphSource:
    """Return the digits as a raw graph: 1,797 nodes, 64 features in [0, 1], 10 classes; the same on every machine.

    Every image is joined, both ways, to the ``neighbours`` images nearest to it.
    """
    pixels, labels = load_digits(return_X_y=True)
    steps = pixels.astype(np.int64)  # whole numbers 0 to 16, so distances are exact and ties are seen
    src, dst = symmetric(nearest(steps, neighbours))
    y = labels.astype(np.int64)
    nodes = node_table(DEFAULT_NODE_TYPE, y.shape[0], x=(steps / 16).astype(np.float32), y=y, split=stratified_split(y))
    edges = edge_table((DEFAULT_NODE_TYPE, DEFAULT_RELATION, DEFAULT_NODE_TYPE), src, dst)
    return graph_in_memory((nodes,), (edges,), f"handwritten digits, {neighbours} nearest neighbours")


def nearest(points: NodeIds, neighbours: int) -> NodeIds:
    """Return [N, neighbours]: the nearest other points by Euclidean distance, ties to the lower row.

    Args:
        points: [N, D] whole numbers.
    """
    squares = (points**2).sum(axis=1)
    found = np.empty((points.shape[0], neighbours), np.int64)
    for start in range(0, points.shape[0], _BLOCK):
        block = points[start : start + _BLOCK]
        distance = squares[None, :] - 2 * block @ points.T
        distance[np.arange(block.shape[0]), start + np.arange(block.shape[0])] = np.iinfo(np.int64).max
        found[start : start + _BLOCK] = np.argsort(distance, axis=1, kind="stable")[:, :neighbours]
    return found


def symmetric(found: NodeIds) -> tuple[NodeIds, NodeIds]:
    """Return sources and destinations [E] of the edges i -> found[i, :] and their reverses, each once, in order."""
    num_nodes, width = found.shape
    rows = np.repeat(np.arange(num_nodes), width)
    keys = np.unique(np.concatenate([rows * num_nodes + found.ravel(), found.ravel() * num_nodes + rows]))
    return keys // num_nodes, keys % num_nodes


def stratified_split(y: NodeIds) -> npt.NDArray[np.uint8]:
    """Return 1 (train), 2 (val) or 3 (test) for each node [N], in the same shares within every class."""
    split = np.full(y.shape[0], 3, np.uint8)
    for label in np.unique(y):
        members = shuffled(np.flatnonzero(y == label), seed=0, epoch=int(label))
        first, second = round(TRAIN * members.shape[0]), round((TRAIN + VAL) * members.shape[0])
        split[members[:first]] = 1
        split[members[first:second]] = 2
    return split
