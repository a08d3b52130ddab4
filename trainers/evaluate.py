"""Exact evaluation: metrics of every split, over all neighbours of every node."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress, task
from graphsys.core.types import SPLITS, Array
from graphsys.core.units import KIB, MIB
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray
from graphsys.storage.row_blocks import READS, cut_rows, read_blocks
from graphsys.storage.store import Store
from graphsys.trainers.inference import infer, open_trained
from graphsys.trainers.objective import Objective, Scores, resolve_objective
from graphsys.trainers.store_arrays import check_trained_store, training_arrays

_SCAN_SHARE = 8  # of the memory budget, as a divisor: buffers that outputs are read through
_SCAN_LEAST = 64 * KIB
_SCAN_MOST = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """Metrics by split and name, and what they cost."""

    metrics: dict[str, dict[str, float]]  # train, val, test; a split without labelled nodes is left out
    checkpoint: str  # fingerprint of the weights
    check: StageReport  # of the store's arrays
    report: StageReport

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        reports = {"check": self.check.as_dict(), "report": self.report.as_dict()}
        return {**self.metrics, "checkpoint": self.checkpoint, **reports}


def evaluate(run: RunConfig, progress: Progress = SILENT, *, overwrite: bool = False) -> EvaluationResult:
    """Return the metrics of the run's final checkpoint, computing the layers' outputs that are not on disk yet.

    Args:
        overwrite: Compute every layer again.

    Raises:
        ArtefactError: The store or a finished training is missing.
        StaleArtefactError: The training used another store or other settings.
        CorruptError: An array of the store is not as it was written.
        MemoryBudgetError: The budget is too small for exact inference.
    """
    trained = open_trained(run)
    objective = resolve_objective(run.task, trained.store.node_type(trained.node_type))
    check = check_trained_store(run, trained.store, training_arrays(trained.store, trained.node_type), progress)
    objective.load_metrics()
    with measure("evaluate") as report:
        inference = infer(trained, progress, redo=overwrite)
        count = ReadCount()
        metrics = _score(trained.store, trained.node_type, inference.last, objective, run, count, progress)
        report.skipped = inference.report.skipped
        report.useful_bytes = inference.report.useful_bytes + count.useful_bytes
        report.details = {"inference": inference.report.as_dict(), "row_bytes_read": count.read_bytes}
    return EvaluationResult(metrics=metrics, checkpoint=trained.checkpoint.fingerprint, check=check, report=report)


def _score(
    store: Store,
    node_type: str,
    output: FlatArray,
    objective: Objective,
    run: RunConfig,
    count: ReadCount,
    progress: Progress,
) -> dict[str, dict[str, float]]:
    """Return the metrics of every split that has labels; outputs, labels and splits are read once, front to back."""
    codes = store.split_codes(node_type)
    if codes is None:
        return {}
    arrays = (output, store.label_array(node_type), codes)
    scores = {name: Scores(objective, torch.device("cpu")) for name in SPLITS}
    with task(progress, "evaluate", output.shape[0], "nodes") as work:
        for rows, y, code in _blocks(arrays, run.memory, count):
            for index, name in enumerate(SPLITS):
                chosen = np.flatnonzero(code == 1 + index)
                scores[name].update(torch.from_numpy(rows[chosen]), torch.from_numpy(y[chosen]))
            work.advance(rows.shape[0])
    found = {name: score.compute() for name, score in scores.items()}
    return {name: values for name, values in found.items() if values}


def _blocks(arrays: tuple[FlatArray, ...], memory: int, count: ReadCount) -> Iterator[tuple[Array, ...]]:
    """Yield the same rows of every array, block by block."""
    share = min(max(memory // _SCAN_SHARE, _SCAN_LEAST), _SCAN_MOST)
    block_rows = max(1, share // (READS + 2) // sum(array.spec.row_nbytes for array in arrays))
    blocks = cut_rows(0, arrays[0].shape[0], block_rows)
    streams = [read_blocks(array, blocks, block_rows=block_rows, count=count) for array in arrays]
    for parts in zip(*streams, strict=True):
        count.add(useful_bytes=sum(part.nbytes for _, part in parts), read_bytes=0)
        yield tuple(part for _, part in parts)
