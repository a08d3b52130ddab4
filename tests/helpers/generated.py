"""Generated graphs as arrays in memory."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphsys.core.types import Features, NodeIds
from graphsys.storage.community_graph import (
    GenerateSpec,
    community_graph,
    fill_edges,
    fill_features,
    fill_labels,
    fill_split,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """All of a generated graph."""

    spec: GenerateSpec
    src: NodeIds
    dst: NodeIds
    x: Features
    y: NodeIds
    split: npt.NDArray[np.uint8]

    def nearest_mean_accuracy(self, x: Features) -> float:
        """Return the test accuracy of taking the class whose mean over the training rows of ``x`` is nearest."""
        train, test = self.split == 1, self.split == 3
        means = np.stack([x[train & (self.y == label)].mean(0) for label in range(self.spec.classes)])
        distance = (means**2).sum(1) - 2 * x[test] @ means.T
        return float(np.mean(distance.argmin(1) == self.y[test]))


def generated_arrays(spec: GenerateSpec) -> Arrays:
    """Return the graph of ``spec``, made in one piece by one thread."""
    graph = community_graph(spec)
    src, dst = np.empty(spec.edges, np.int64), np.empty(spec.edges, np.int64)
    y, split = np.empty(spec.nodes, np.int64), np.empty(spec.nodes, np.uint8)
    x = np.empty((spec.nodes, spec.features), np.float32)
    fill_edges(graph, 0, src, dst)
    fill_labels(graph, 0, y)
    fill_split(graph, 0, split)
    fill_features(graph, 0, y, x)
    return Arrays(spec=spec, src=src, dst=dst, x=x, y=y, split=split)
