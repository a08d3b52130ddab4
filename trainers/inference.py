"""Exact inference over all nodes, out of core: one layer after the other, each kept on disk and never made twice."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, StaleArtefactError
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress, Task, task
from graphsys.core.types import EdgeType, Features
from graphsys.models.base import BatchModel, LayerwiseModel
from graphsys.models.layered import LayeredModel
from graphsys.storage.features import ReadCount
from graphsys.storage.files import atomic_folder, claimed_folder
from graphsys.storage.flat import FlatArray, FlatSpec, FlatWriter
from graphsys.storage.groups import write_groups
from graphsys.storage.manifest import MANIFEST_NAME, Manifest, read_manifest, write_manifest
from graphsys.storage.store import Store
from graphsys.trainers.checkpoint import Checkpoint, final_checkpoint, load_checkpoint
from graphsys.trainers.chunks import ChunkLimits, EdgeReader, LayerCost
from graphsys.trainers.device import exact_torch, resolve_device
from graphsys.trainers.edge_ranges import RangeReader
from graphsys.trainers.layer_pass import LayerPass, layer_pass
from graphsys.trainers.layerwise import LayerTally, layer_width, run_layer
from graphsys.trainers.model_factory import build_network
from graphsys.trainers.objective import resolve_objective
from graphsys.trainers.passes import PassLimits, run_passes
from graphsys.trainers.pipeline.exact import exact_blocks
from graphsys.trainers.resume import changed_parents
from graphsys.trainers.run_folder import RunFolder, differing_keys, training_identity
from graphsys.trainers.store_arrays import check_arrays, inference_arrays
from graphsys.trainers.whole_batches import run_whole_batches

KIND = "inference"
ROWS = "h"  # the one array of a layer
_WRITE_SHARE = 64  # of the memory budget, as a divisor: a buffer of the output


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """The outputs of a network's layers for all nodes, on disk."""

    folder: Path
    num_layers: int  # L
    report: StageReport

    def layer(self, number: int) -> FlatArray:
        """Open the output [N, D] float32 of layer ``number``, counted from 1.

        Raises:
            ArtefactError: It was not kept.
        """
        return open_layer(layer_folder(self.folder, number))

    @property
    def last(self) -> FlatArray:
        """The network's output [N, num_outputs] float32."""
        return self.layer(self.num_layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A run's store, final checkpoint and network, ready to infer."""

    run: RunConfig
    store: Store
    node_type: str
    checkpoint: Checkpoint
    model: BatchModel | LayeredModel  # the checkpoint's weights, in evaluation mode, on ``device``
    device: torch.device

    @property
    def num_nodes(self) -> int:
        """Nodes of the type that is inferred."""
        return self.store.node_types[self.node_type].num_nodes

    @property
    def edge_type(self) -> EdgeType:
        """The edges that join these nodes."""
        return self.store.edge_type_within(self.node_type)

    @property
    def parents(self) -> dict[str, str]:
        """Fingerprints of what the outputs are made from."""
        return {"store": self.store.fingerprint, "checkpoint": self.checkpoint.fingerprint}


def open_trained(run: RunConfig) -> Trained:
    """Open the store and the network that a finished training left in the run's folder.

    Raises:
        ArtefactError: The store or a finished training is missing.
        StaleArtefactError: The training used another store or other settings.
    """
    store = Store.open(run.store)
    path = final_checkpoint(run.out)
    checkpoint = load_checkpoint(path)
    _check_origin(run, store, path, checkpoint.manifest)
    info = store.node_type(run.task.node_type)
    model = build_network(run, info.num_features, resolve_objective(run.task, info).num_outputs)
    model.load_state_dict(checkpoint.weights)
    device = resolve_device(run.trainer)
    model.to(device).eval()
    return Trained(run=run, store=store, node_type=info.name, checkpoint=checkpoint, model=model, device=device)


def _check_origin(run: RunConfig, store: Store, path: Path, manifest: Manifest) -> None:
    if manifest.parents["store"] != store.fingerprint:
        raise StaleArtefactError(
            f"{path} was trained on another store than {store.path} ({manifest.parents['store'][:12]}, found "
            f"{store.fingerprint[:12]}); name that store, or train again with another 'out'"
        )
    changed = [*changed_parents(run, store, manifest), *differing_keys(manifest.config, training_identity(run))]
    if changed:
        raise StaleArtefactError(
            f"{path} was trained with other settings ({'; '.join(changed)}); restore them, or train again with "
            f"another 'out'"
        )


def infer(trained: Trained, progress: Progress = SILENT, *, upto: int | None = None, redo: bool = False) -> Inference:
    """Compute the layers that are not on disk yet, from all neighbours of every node, and return them all.

    A layer made from another store or checkpoint is made again. The result depends on the run's config, the store and
    the checkpoint only: a rerun gives the same bytes.

    Args:
        upto: Last layer wanted, counted from 1; None: the network's output. A network without ``forward_layer`` gives
            its output only.
        redo: Make every layer again.

    Raises:
        CorruptError: An array of the store is not as it was written.
        MemoryBudgetError: The budget is too small; the message says what would do.
        ConfigError: An inner layer of a network without ``forward_layer`` is wanted.
    """
    last = upto or trained.run.num_layers
    folder = RunFolder(trained.run.out).inference
    numbers = range(1, last + 1) if isinstance(trained.model, LayerwiseModel) else range(last, last + 1)
    with (
        claimed_folder(trained.run.out),
        measure("infer") as report,
        exact_torch(trained.device, trained.run.trainer.threads),
    ):
        made = [number for number in numbers if redo or not is_current(layer_folder(folder, number), trained)]
        if made:
            check = check_arrays(
                trained.run, trained.store, inference_arrays(trained.store, trained.node_type), progress
            )
            check.remember(RunFolder(trained.run.out).store_checked)
        for number in made:
            details = _make_layer(trained, folder, number, progress)
            report.details[f"layer-{number}"] = details
            report.useful_bytes += details["useful_bytes"]
        report.skipped = not made
    return Inference(folder=folder, num_layers=trained.run.num_layers, report=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Blocks:
    """The outputs of a layer on their way to the disk."""

    blocks: Iterable[Features]
    edges: ReadCount  # filled as the blocks are made
    write_buffer: int  # bytes of each buffer that they are written through


def _make_layer(trained: Trained, folder: Path, number: int, progress: Progress) -> dict[str, Any]:
    tally = LayerTally(rows=ReadCount())
    started = time.perf_counter()
    with task(progress, f"infer layer {number}", trained.num_nodes, "nodes") as work:
        made = _blocks(trained, folder, number, tally, work)
        spec = _write_layer(layer_folder(folder, number), made, trained.parents, number)
    return {
        "chunks": tally.chunks,
        "steps": tally.steps,
        "seconds": round(time.perf_counter() - started, 3),
        "useful_bytes": tally.rows.useful_bytes + made.edges.useful_bytes,
        "row_bytes_read": tally.rows.read_bytes,
        "edge_bytes_read": made.edges.read_bytes,
        "bytes_written": spec.nbytes,
    }


def _blocks(trained: Trained, folder: Path, number: int, tally: LayerTally, work: Task) -> _Blocks:
    """Return how layer ``number`` is made: in passes over the rows, in chunks of destinations, or in whole batches."""
    if not isinstance(trained.model, LayerwiseModel):
        _check_last_only(trained, number)
        if isinstance(trained.model, LayeredModel):
            return _whole_graph(trained, trained.model, tally, work)
        return _whole_batches(trained, trained.model, tally, work)
    layer = layer_pass(trained.model, number - 1, trained.device)
    below = _below(trained, folder, number)
    if layer is None:
        return _chunked(trained, trained.model, number - 1, below, tally, work)
    return _passes(trained, trained.model, layer, below, tally, work)


def _passes(
    trained: Trained, model: LayerwiseModel, layer: LayerPass, below: FlatArray, tally: LayerTally, work: Task
) -> _Blocks:
    edges = RangeReader(trained.store, trained.edge_type)
    limits = PassLimits.of(
        trained.run.memory,
        dim=below.shape[1],
        width=layer_width(model, below.shape[1]),
        state_nbytes=4 * layer.state_channels,
    )
    threads = torch.get_num_threads()
    blocks = run_passes(layer, below, edges, limits=limits, threads=threads, tally=tally, task=work)
    return _Blocks(blocks=blocks, edges=edges.count, write_buffer=limits.write_buffer)


def _chunked(
    trained: Trained, model: LayerwiseModel, index: int, below: FlatArray, tally: LayerTally, work: Task
) -> _Blocks:
    edges = EdgeReader(trained.store, trained.edge_type)
    cost = LayerCost.of(below.shape[1], layer_width(model, below.shape[1]))
    limits = ChunkLimits.of(trained.run.memory, cost)
    blocks = run_layer(
        model, index, below, edges, limits=limits, cost=cost, device=trained.device, tally=tally, task=work
    )
    return _Blocks(blocks=blocks, edges=edges.count, write_buffer=trained.run.memory // _WRITE_SHARE)


def _whole_graph(trained: Trained, model: LayeredModel, tally: LayerTally, work: Task) -> _Blocks:
    blocks = exact_blocks(
        trained.run, model, trained.store, trained.node_type, trained.device, count=tally.rows, work=work
    )
    return _Blocks(blocks=blocks, edges=ReadCount(), write_buffer=trained.run.memory // _WRITE_SHARE)


def _whole_batches(trained: Trained, model: BatchModel, tally: LayerTally, work: Task) -> _Blocks:
    blocks = run_whole_batches(
        model,
        trained.store,
        trained.node_type,
        memory=trained.run.memory,
        device=trained.device,
        tally=tally,
        task=work,
    )
    return _Blocks(blocks=blocks, edges=ReadCount(), write_buffer=trained.run.memory // _WRITE_SHARE)


def _below(trained: Trained, folder: Path, number: int) -> FlatArray:
    if number == 1:
        return trained.store.features(trained.node_type)
    return open_layer(layer_folder(folder, number - 1))


def _check_last_only(trained: Trained, number: int) -> None:
    if number != trained.run.num_layers:
        raise ConfigError(
            f"layer {number} was asked for, but {trained.run.model.class_path or trained.run.model.name} has no "
            f"forward_layer, so only its last output is known; set embed.layer to last, or derive the network from "
            f"graphsys.models.base.LayerwiseModel"
        )


def layer_folder(folder: Path, number: int) -> Path:
    """Return where the output of layer ``number``, counted from 1, lies below an inference folder."""
    return folder / f"layer-{number}"


def open_layer(folder: Path) -> FlatArray:
    """Open the rows of a finished layer.

    Raises:
        ArtefactError: There is none.
    """
    return FlatArray(folder / ROWS, read_manifest(folder, KIND).arrays[ROWS])


def is_current(folder: Path, trained: Trained) -> bool:
    """Whether a layer's ``folder`` is there and was made from the store and the checkpoint of ``trained``."""
    return (folder / MANIFEST_NAME).is_file() and read_manifest(folder, KIND).parents == trained.parents


def _write_layer(folder: Path, made: _Blocks, parents: dict[str, str], number: int) -> FlatSpec:
    with atomic_folder(folder, overwrite=True) as partial:
        spec = _write_rows(partial / ROWS, made)
        content = {"layer": number, "num_rows": spec.shape[0], "dim": spec.shape[1]}
        files = write_groups(partial, [ROWS], content)
        write_manifest(
            partial,
            Manifest(kind=KIND, config={}, parents=parents, content=content, arrays={ROWS: spec}, files=files),
        )
    return spec


def _write_rows(folder: Path, made: _Blocks) -> FlatSpec:
    stream = iter(made.blocks)
    first = next(stream)
    writer = FlatWriter(folder, np.float32, first.shape[1:], buffer_bytes=max(made.write_buffer, 1))
    try:
        for block in chain([first], stream):
            writer.append(block)
        return writer.close()
    except BaseException:
        writer.abort()
        raise
