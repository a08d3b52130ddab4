"""The two preprocessing stages by themselves: windows made ahead of a training, which then finds them."""

from dataclasses import dataclass
from typing import Any

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport
from graphsys.core.progress import SILENT, Progress
from graphsys.storage.files import claimed_folder
from graphsys.storage.store import Store
from graphsys.trainers.device import resolve_device
from graphsys.trainers.feed import WindowFeed
from graphsys.trainers.model_factory import build_model
from graphsys.trainers.objective import resolve_objective, training_nodes
from graphsys.trainers.resume import find_earlier, is_finished


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """What lies ready for training, and what it cost."""

    stages: dict[str, StageReport]  # sample, pack
    windows: dict[str, dict[str, Any]]  # split -> mode, counts, bytes

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"windows": self.windows, "stages": {name: report.as_dict() for name, report in self.stages.items()}}


def prepare(
    run: RunConfig, progress: Progress = SILENT, *, pack: bool = True, overwrite: bool = False
) -> PrepareResult:
    """Make the windows that training reads first: all of frozen samples, the next one of fresh samples.

    Args:
        pack: False stops at the samples.
        overwrite: Replace windows, and ignore a training, of another store or with other settings.

    Raises:
        StaleArtefactError: The folder holds windows or a training of another store or with other settings.
        As :func:`graphsys.trainers.fit.fit` otherwise.
    """
    with claimed_folder(run.out):
        return _prepare(run, progress, pack=pack, overwrite=overwrite)


def _prepare(run: RunConfig, progress: Progress, *, pack: bool, overwrite: bool) -> PrepareResult:
    store = Store.open(run.store)
    info = store.node_type(run.task.node_type)
    objective = resolve_objective(run.task, info)
    node = training_nodes(store, info.name)
    earlier = None if overwrite else find_earlier(run, store)
    if earlier is not None and is_finished(run, earlier):
        skipped = {name: StageReport(name=name, skipped=True) for name in ("sample", "pack")}
        return PrepareResult(stages=skipped, windows={})
    store.features(info.name)
    model = build_model(run, info.num_features, objective.num_outputs)
    device = resolve_device(run.trainer)
    with WindowFeed(run, store, node, with_degree=model.needs_degree, device=device, overwrite=overwrite) as feed:
        if pack:
            feed.prepare(progress, 0 if earlier is None else earlier.step)
        else:
            feed.sample(progress)
        return PrepareResult(stages=feed.reports, windows=_windows(feed))


def _windows(feed: WindowFeed) -> dict[str, dict[str, Any]]:
    return {
        split: {
            "mode": windows.plan.mode,
            "samples": windows.schedule.samples,
            "num_windows": windows.num_windows,
            "window_batches": windows.plan.window_batches,
            "batches_per_epoch": windows.schedule.batches_per_epoch,
            "nbytes": windows.nbytes,
        }
        for split, windows in feed.windows.items()
    }
