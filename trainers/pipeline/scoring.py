"""Loss and metrics of the network as it is, from exact outputs of all nodes."""

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
    """Scores one split. All processes make one alike; way 0 of the last stage computes."""

    runtime: Runtime
    table: ChunkTable
    objective: Objective
    y: Array  # [N] or [N, C] labels
    node: NodeIds  # the nodes of the split

    def score(self) -> dict[str, float]:
        """Return metrics by name, the same on every process; none when no node of the split has labels."""
        links = self.runtime.links
        source = links.shape.rank(links.shape.stages - 1, 0)
        scores = Scores(self.objective, torch.device("cpu"))
        wanted = np.zeros(self.table.num_nodes, np.bool_)
        wanted[self.node] = True

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
                if not found.shape[0]:
                    continue
                if way:
                    target = rows.new_empty((found.shape[0], rows.shape[1]))
                    rows = links.receive(target, links.shape.rank(links.stage, way), self._tag(slot)).wait()
                scores.update(rows, torch.from_numpy(self.y[found]))

        self.runtime.run_exactly(take)
        links.settle("exchange")
        shared: dict[str, float] = links.share(scores.compute() if links.rank == source else None, source)
        return shared

    def _nodes(self, way: int, slot: int) -> NodeIds:
        starts = self.table.slot_starts(way)
        return self.table.nodes_of(way)[starts[slot] : starts[slot + 1]]

    def _tag(self, slot: int) -> int:
        return 2 * (self.runtime.stage.model.num_layers * self.table.num_slots + slot)
