"""Exact evaluation: metrics of every split, over all neighbours of every node."""

from dataclasses import dataclass
from typing import Any

import torch

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress, task
from graphsys.core.types import SPLITS
from graphsys.core.units import KIB
from graphsys.storage.features import ReadCount, scan_rows
from graphsys.storage.flat import FlatArray
from graphsys.storage.store import Store
from graphsys.trainers.inference import infer, open_trained
from graphsys.trainers.objective import Objective, Scores, resolve_objective
from graphsys.trainers.store_arrays import check_trained_store, training_arrays

_SCAN_SHARE = 8  # of the memory budget, as a divisor: buffers that outputs are read through
_SCAN_LEAST = 64 * KIB


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
    with measure("evaluate") as report:
        inference = infer(trained, progress, redo=overwrite)
        count = ReadCount()
        metrics: dict[str, dict[str, float]] = {}
        for name in SPLITS:
            scores = _score(trained.store, trained.node_type, name, inference.last, objective, run, count, progress)
            if scores:
                metrics[name] = scores
        report.skipped = inference.report.skipped
        report.useful_bytes = inference.report.useful_bytes + count.useful_bytes
        report.details = {"inference": inference.report.as_dict(), "row_bytes_read": count.read_bytes}
    return EvaluationResult(metrics=metrics, checkpoint=trained.checkpoint.fingerprint, check=check, report=report)


def _score(
    store: Store,
    node_type: str,
    split: str,
    output: FlatArray,
    objective: Objective,
    run: RunConfig,
    count: ReadCount,
    progress: Progress,
) -> dict[str, float]:
    node, y = store.split(node_type, split), store.labels(node_type)
    scores = Scores(objective, torch.device("cpu"))
    with task(progress, f"evaluate {split}", node.shape[0], "nodes") as work:
        for place, rows in scan_rows(output, node, memory=max(run.memory // _SCAN_SHARE, _SCAN_LEAST), count=count):
            scores.update(torch.from_numpy(rows), torch.from_numpy(y[node[place]]))
            work.advance(rows.shape[0])
    return scores.compute()
