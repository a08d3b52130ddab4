"""Checkpoints of a pipeline: one for all processes, that any other number of them can go on from.

Weights and the optimizer's memory are kept by name, the snapshot of the histories by node and layer. There is no other
state: the order of chunks and all randomness follow from (seed, epoch).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsys.core.types import NodeIds
from graphsys.models.layered_parts import stage_parameters
from graphsys.storage.flat import FlatArray, FlatSpec, FlatWriter
from graphsys.storage.manifest import Manifest
from graphsys.trainers.checkpoint import Checkpoint, save_checkpoint
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.runtime import Runtime
from graphsys.trainers.state import detached, load_optimizer, optimizer_state

_FOLDER = "history"
_NODE = "node"
_BLOCK_ROWS = 1 << 16


class StageFiles:
    """One process's part of a checkpoint.

    Args:
        num_features: Columns of the features.
    """

    def __init__(self, runtime: Runtime, table: ChunkTable, num_features: int) -> None:
        stage = runtime.stage
        self._runtime = runtime
        self._table = table
        self.weights = stage_parameters(stage.model, num_features, stage.first, stage.stop)

    def save(
        self, path: Path, common: Mapping[str, Any], best: Mapping[str, Tensor] | None, manifest: Manifest
    ) -> Path:
        """Write a checkpoint; all processes take part, and return when it is there.

        Args:
            common: What process 0 adds to the state.
            best: The process's own weights of the best validation.

        Raises:
            DiskError: The system refused.
        """
        links = self._runtime.links
        model = self._runtime.stage.model
        parts = links.gather(self._part(best) if links.way == 0 else None)
        if links.rank == 0:
            named = [name for name, _ in model.named_parameters()]
            whole = {name: _merged(parts, name) for name in ("model", "optimizer", "best")}
            weights = {name: whole["model"].get(name, tensor) for name, tensor in detached(model.state_dict()).items()}
            chosen = None if best is None else {"model": {**weights, **whole["best"]}}
            state = {
                "model": weights,
                "optimizer": {name: whole["optimizer"][name] for name in named},
                "best": chosen,
                **common,
            }
            save_checkpoint(path, state, manifest, arrays=self._write_together)
        else:
            self._write_together(None)
        links.share(None, 0)  # it is there
        return path

    def _part(self, best: Mapping[str, Tensor] | None) -> dict[str, Any]:
        return {
            "model": detached(self.weights),
            "optimizer": optimizer_state(self.weights.items(), self._runtime.optimizer),
            "best": dict(best or {}),
        }

    def load(self, checkpoint: Checkpoint) -> dict[str, Tensor] | None:
        """Take over weights and the optimizer's memory; return the process's own best weights, if there are any."""
        state = checkpoint.state
        self._runtime.stage.model.load_state_dict(state["model"])
        load_optimizer(self.weights.items(), self._runtime.optimizer, state["optimizer"])
        best = state["best"]
        return None if best is None else {name: best["model"][name] for name in self.weights}

    def _write_together(self, folder: Path | None) -> dict[str, FlatSpec]:
        """Have every process write its snapshot below the folder that process 0 knows; return all arrays there."""
        links = self._runtime.links
        shared: Path = links.share(folder, 0)
        gathered: list[dict[str, FlatSpec]] = links.gather(self._write_history(shared))
        return {name: spec for part in gathered for name, spec in part.items()}

    def _write_history(self, folder: Path) -> dict[str, FlatSpec]:
        histories, way = self._runtime.stage.histories, self._runtime.links.way
        base, own = f"{_FOLDER}/part-{way}", slice(0, histories.graph.num_own)
        arrays: dict[str, Any] = {
            f"{base}/layer-{layer:04d}": history.snapshot[own]
            for layer, history in histories.layers.items()
            if history.snapshot is not None
        }
        if arrays and self._runtime.links.stage == 0:
            arrays[f"{base}/{_NODE}"] = torch.from_numpy(self._table.nodes_of(way))
        return {name: _write(folder / name, rows) for name, rows in arrays.items()}

    def load_history(self, checkpoint: Checkpoint) -> bool:
        """Take over the snapshot of this process's layers; False if the checkpoint has none."""
        arrays = {name: FlatArray(checkpoint.path / name, spec) for name, spec in checkpoint.manifest.arrays.items()}
        parts = [name.rpartition("/")[0] for name in arrays if name.endswith(f"/{_NODE}")]
        if not parts:
            return False
        row = self._row_of_node()
        for base in parts:
            node = arrays[f"{base}/{_NODE}"].read()
            for layer, history in self._runtime.stage.histories.layers.items():
                if history.snapshot is not None:
                    _scatter(arrays[f"{base}/layer-{layer:04d}"], row[node], history.snapshot)
        self._runtime.stage.histories.restore()
        return True

    def _row_of_node(self) -> NodeIds:
        """Return [N] the own or mirror row of each dense id, -1 where it has none here."""
        graph = self._runtime.stage.histories.graph
        row = np.full(self._table.num_nodes, -1, np.int64)
        row[self._table.nodes_of(graph.way)] = np.arange(graph.num_own)
        row[self._table.node[graph.mirror_place]] = np.arange(graph.num_own, graph.num_rows)
        return row


def _merged(parts: list[dict[str, Any] | None], name: str) -> dict[str, Any]:
    return {key: value for part in parts if part is not None for key, value in part[name].items()}


def _write(folder: Path, rows: Tensor) -> FlatSpec:
    writer = FlatWriter(folder, np.int64 if rows.dtype == torch.int64 else np.float32, rows.shape[1:])
    try:
        for block in torch.split(rows, _BLOCK_ROWS):
            writer.append(block.cpu().numpy())
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def _scatter(array: FlatArray, row: NodeIds, into: Tensor) -> None:
    """Copy rows [k, M] of an array to the rows ``row`` [k] of ``into``; those of -1 are left out."""
    for start, block in array.blocks(_BLOCK_ROWS):
        target = row[start : start + block.shape[0]]
        known = target >= 0
        into[torch.from_numpy(target[known]).to(into.device)] = torch.from_numpy(block[known]).to(into.device)
