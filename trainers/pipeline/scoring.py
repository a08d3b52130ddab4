"""Loss and metrics of the network as it is, from exact outputs of all nodes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from graphsys.core.types import Array, NodeIds
from graphsys.trainers.objective import Objective, Scores
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.runtime import Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Scores one set of splits. All processes make one alike; way 0 of the last stage computes."""

    runtime: Runtime
    table: ChunkTable
    objective: Objective
    y: Array  # [N] or [N, C] labels
    splits: Mapping[str, NodeIds]  # nodes of each split

    def score(self) -> dict[str, dict[str, float]]:
        """Return metrics by split and name, the same on every process; a split without labels has none."""
        links = self.runtime.links
        source = links.shape.rank(links.shape.stages - 1, 0)
        scores = {name: Scores(self.objective, torch.device("cpu")) for name in self.splits}
        chosen = {name: _mask(node, self.table.num_nodes) for name, node in self.splits.items()}
        wanted = np.logical_or.reduce([np.zeros(self.table.num_nodes, np.bool_), *chosen.values()])

        def take(slot: int, outputs: Tensor) -> None:
            node = self._nodes(links.way, slot)
            rows = outputs[torch.from_numpy(np.flatnonzero(wanted[node])).to(outputs.device)].cpu()
            if links.rank != source:
                if rows.shape[0]:
                    links.send(rows, source, self._tag(slot), "exchange")
                return
            for way in range(links.shape.ways):
                found = self._nodes(way, slot)
                found = found[wanted[found]]
                if way and found.shape[0]:
                    target = rows.new_empty((found.shape[0], rows.shape[1]))
                    rows = links.receive(target, links.shape.rank(links.stage, way), self._tag(slot)).wait()
                self._add(scores, chosen, found, rows)

        self.runtime.run_exactly(take)
        links.settle("exchange")
        metrics = {name: score.compute() for name, score in scores.items()} if links.rank == source else None
        shared: dict[str, dict[str, float]] = links.share(metrics, source)
        return shared

    def _add(self, scores: dict[str, Scores], chosen: Mapping[str, Array], node: NodeIds, rows: Tensor) -> None:
        for name, score in scores.items():
            mine = np.flatnonzero(chosen[name][node])
            score.update(rows[torch.from_numpy(mine)], torch.from_numpy(self.y[node[mine]]))

    def _nodes(self, way: int, slot: int) -> NodeIds:
        starts = self.table.slot_starts(way)
        return self.table.nodes_of(way)[starts[slot] : starts[slot + 1]]

    def _tag(self, slot: int) -> int:
        return 2 * (self.runtime.stage.model.num_layers * self.table.num_slots + slot)


def _mask(node: NodeIds, num_nodes: int) -> Array:
    mask = np.zeros(num_nodes, np.bool_)
    mask[node] = True
    return mask
