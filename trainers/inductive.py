"""Vectors of nodes that came after the training, from their features and edges, exactly and layer by layer.

The inner layers' outputs of all known nodes lie on disk (:mod:`graphsys.trainers.inference`), so a new node costs its
own edges, once per layer. Known nodes keep their vectors: new nodes see them, not the other way round.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from graphsys.core.config import RunConfig
from graphsys.core.errors import InputError, StaleArtefactError
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import Features, NodeIds, edge_type_key
from graphsys.models.base import BatchModel, LayerHop, LayerwiseModel
from graphsys.models.layered import LayeredModel
from graphsys.models.streamed_layers import StreamedLayers
from graphsys.storage.checked_rows import CheckedRows
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.trainers.accumulate import Accumulator
from graphsys.trainers.edge_ranges import MAX_BLOCK_ROWS
from graphsys.trainers.inductive_batches import new_batch
from graphsys.trainers.inference import Trained, infer, is_current, layer_folder, open_layer, open_trained
from graphsys.trainers.layer_pass import LayerPass, layer_pass
from graphsys.trainers.new_nodes import Joined, NewNodes, join
from graphsys.trainers.objective import Objective, resolve_objective
from graphsys.trainers.run_folder import RunFolder
from graphsys.trainers.store_arrays import check_trained_store, inference_arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """What a network says of new nodes."""

    vectors: Features  # [Q, dim] as the table's
    predictions: Features | None  # [Q, C] as :meth:`InductiveModel.predict`; None: not asked for

    def split(self, sizes: Sequence[int], predict: Sequence[bool]) -> list["Inferred"]:
        """Return the parts of ``sizes`` nodes each; predictions only where they were asked for."""
        ends = np.cumsum(sizes).tolist()
        return [
            Inferred(
                vectors=self.vectors[end - size : end],
                predictions=self.predictions[end - size : end] if asked and self.predictions is not None else None,
            )
            for size, end, asked in zip(sizes, ends, predict, strict=True)
        ]


class InductiveModel:
    """A trained network over its stored graph, ready for new nodes; see :func:`open_inductive`."""

    def __init__(self, trained: Trained, layer: int, objective: Objective) -> None:
        run, store = trained.run, trained.store
        folder = RunFolder(run.out).inference
        topology = f"topology/{edge_type_key(trained.edge_type)}"
        info = store.node_type(trained.node_type)
        self.run_folder = run.out
        self.num_features = info.num_features
        self.num_nodes = info.num_nodes
        self.num_outputs = objective.num_outputs
        self.task = run.task.type
        self.classes: Sequence[str] = store.class_names(info.name)  # names; empty where classes are numbers
        self._trained = trained
        self._objective = objective
        self._layer = layer  # whose output the table holds
        self._num_layers = run.num_layers
        self._indptr = CheckedRows(store.array(f"{topology}/indptr"))
        self._features = CheckedRows(store.features(info.name))
        self._last = CheckedRows(open_layer(layer_folder(folder, run.num_layers)))
        inner = range(1, run.num_layers) if isinstance(trained.model, LayerwiseModel) else range(0)
        self._below = [self._features, *(CheckedRows(open_layer(layer_folder(folder, number))) for number in inner)]
        self._accumulator = Accumulator(torch.get_num_threads())

    def predict(self, node: NodeIds) -> Features:
        """Return what the network says of known nodes ``node`` [Q]: [Q, C].

        Probabilities of classes (which sum to 1), or of labels (each by itself); in a regression the values.

        Raises:
            CorruptError: A chunk of the stored outputs is not as it was written.
        """
        return self._predictions(torch.from_numpy(np.ascontiguousarray(self._last.take(node))))

    def infer(self, nodes: NewNodes, *, predict: bool = False) -> Inferred:
        """Return the vectors of new nodes, and if asked for what the network says of them.

        A node that the graph already has gets, with its own features and all its in-edges, the vector that the table
        holds, up to rounding. A known neighbour counts with the degree it has in the store.

        Raises:
            InputError: The features have another width or are not finite, or an edge names no node.
            CorruptError: A chunk of the stored rows is not as it was written.
            MemoryBudgetError: A network that only takes whole neighbourhoods meets one beyond the run's memory.
        """
        self.check(nodes)
        model = self._trained.model
        with torch.no_grad():
            if isinstance(model, LayerwiseModel):
                return self._by_layers(model, nodes, predict=predict)
            assert isinstance(model, BatchModel), "networks of layers were wrapped when the model was opened"
            return self._by_batch(model, nodes, predict=predict)

    def check(self, nodes: NewNodes) -> None:
        """Refuse nodes that the network cannot take; raises as :meth:`infer` does."""
        if nodes.x.ndim != 2 or nodes.x.shape[1] != self.num_features:
            raise InputError(
                f"the features have shape {nodes.x.shape}; the network takes [number of nodes, {self.num_features}]"
            )
        bad = np.argwhere(~np.isfinite(nodes.x))
        if bad.size:
            row, place = bad[0]
            raise InputError(f"new node {row} has {nodes.x[row, place]} as feature {place}; give finite numbers")
        num_new = nodes.x.shape[0]
        for name, end, most in (
            ("new", nodes.new, num_new), ("source", nodes.source, num_new), ("target", nodes.target, num_new),
            ("known", nodes.known, self.num_nodes),
        ):  # fmt: skip
            wrong = end[(end < 0) | (end >= most)]
            if wrong.size:
                raise InputError(f"an edge's '{name}' is {wrong[0]}; there are {most} such nodes, counted from 0")

    def _by_layers(self, model: LayerwiseModel, nodes: NewNodes, *, predict: bool) -> Inferred:
        joined = join(nodes)
        degree = np.concatenate([joined.degree, self._in_degree(joined.known)])
        x, vectors = np.ascontiguousarray(nodes.x, np.float32), None
        for index in range(self._num_layers if predict else self._layer):
            rows = np.concatenate([x, self._below[index].take(joined.known)])
            x = self._run_layer(model, index, joined, rows, degree)
            vectors = x if index == self._layer - 1 else vectors
        assert vectors is not None, "a table holds the output of one of the layers"
        return Inferred(vectors=vectors, predictions=self._predictions(torch.from_numpy(x)) if predict else None)

    def _run_layer(
        self, model: LayerwiseModel, index: int, joined: Joined, rows: Features, degree: NodeIds
    ) -> Features:
        layer = layer_pass(model, index, self._trained.device)
        if layer is not None:
            return self._pass(layer, joined, rows, degree)
        device = self._trained.device
        hop = LayerHop(
            indptr=torch.from_numpy(joined.indptr).to(device),
            indices=torch.from_numpy(joined.source).to(device),
            in_degree=torch.from_numpy(degree.astype(np.int32)).to(device) if model.needs_degree else None,
        )
        out: Features = model.forward_layer(index, torch.from_numpy(rows).to(device), hop).float().cpu().numpy()
        return out

    def _pass(self, layer: LayerPass, joined: Joined, rows: Features, degree: NodeIds) -> Features:
        # The kernels that made the stored vectors: what they round, they round here too.
        num_new = joined.num_new
        state = np.zeros((num_new, layer.state_channels), np.float32)

        def own() -> Iterator[tuple[slice, Features]]:
            yield slice(0, num_new), rows[:num_new]

        layer.start(state, own)
        for start in range(0, rows.shape[0], MAX_BLOCK_ROWS):
            block = slice(start, start + MAX_BLOCK_ROWS)
            here = (joined.source >= start) & (joined.source < start + MAX_BLOCK_ROWS)
            source = (joined.source[here] - start).astype(np.uint16)
            sent = layer.send(rows[block], degree[block])
            layer.add(self._accumulator, sent, source, joined.target[here].astype(np.int32), state)
        return np.concatenate(list(layer.outputs(state, joined.degree, own)))

    def _by_batch(self, model: BatchModel, nodes: NewNodes, *, predict: bool) -> Inferred:
        trained = self._trained
        topology = trained.store.topology(trained.edge_type)
        batch = new_batch(model, nodes, topology, self._features, memory=trained.run.memory)
        out = model(batch.to(trained.device)).float().cpu()
        return Inferred(vectors=out.numpy(), predictions=self._predictions(out) if predict else None)

    def _in_degree(self, node: NodeIds) -> NodeIds:
        return np.asarray(self._indptr.take(node + 1) - self._indptr.take(node), np.int64)

    def _predictions(self, output: torch.Tensor) -> Features:
        said: Features = self._objective.said(output).numpy()
        return said

    def close(self) -> None:
        """Let go of threads and files."""
        self._accumulator.close()


def open_inductive(run: RunConfig, table: EmbeddingTable, progress: Progress = SILENT) -> InductiveModel:
    """Open the network that made ``table``; layers of known nodes that are not on disk yet are computed first.

    Args:
        run: The run whose training and store the table comes from.

    Raises:
        ArtefactError: The store or a finished training is missing.
        StaleArtefactError: The table was made from another store or checkpoint.
        CorruptError: An array of the store is not as it was written.
        DiskError: Layers must be computed, and another process is writing to the run's folder.
    """
    trained = open_trained(run)
    _check_origin(trained, table)
    check_trained_store(run, trained.store, inference_arrays(trained.store, trained.node_type), progress)
    _make_missing(trained, run.num_layers, progress)
    if isinstance(trained.model, LayeredModel):
        layers: Any = StreamedLayers(trained.model)
        trained = replace(trained, model=layers.eval())
    if isinstance(trained.model, LayerwiseModel) and run.num_layers > 1:
        _make_missing(trained, run.num_layers - 1, progress)
    objective = resolve_objective(run.task, trained.store.node_type(trained.node_type))
    return InductiveModel(trained, table.layer, objective)


def _check_origin(trained: Trained, table: EmbeddingTable) -> None:
    paths = {"store": trained.store.path, "checkpoint": trained.checkpoint.path}
    for name, path in paths.items():
        made_from, found = table.manifest.parents[name], trained.parents[name]
        if made_from != found:
            raise StaleArtefactError(
                f"{table.path} was made from another {name} ({made_from[:12]}) than {path} ({found[:12]}); name the "
                f"run that made it, or run `graphsys embed` again"
            )


def _make_missing(trained: Trained, upto: int, progress: Progress) -> None:
    """Compute the layers up to ``upto`` that are not there; where all are, the run's folder is not touched."""
    folder = RunFolder(trained.run.out).inference
    numbers = range(1, upto + 1) if isinstance(trained.model, LayerwiseModel) else [upto]
    if not all(is_current(layer_folder(folder, number), trained) for number in numbers):
        infer(trained, progress, upto=upto)
