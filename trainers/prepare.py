"""The two preprocessing stages by themselves: windows made ahead of a training, which then finds them."""

from dataclasses import dataclass
from typing import Any

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError
from graphsys.core.metrics import StageReport
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import LoaderCursor
from graphsys.storage.files import claimed_folder
from graphsys.trainers.feed import WindowFeed
from graphsys.trainers.objective import training_nodes
from graphsys.trainers.opening import open_training
from graphsys.trainers.run_folder import RunFolder

_START = LoaderCursor(epoch=0, next_batch_id=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """What lies ready for training, and what it cost."""

    stages: dict[str, StageReport]  # check, sample, pack
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
        ConfigError: The run trains on the whole graph, or has several workers, each of which makes its own windows.
        StaleArtefactError: The folder holds windows or a training of another store or with other settings.
        As :func:`graphsys.trainers.fit.fit` otherwise.
    """
    if run.trainer.strategy == "pipeline":
        raise ConfigError(
            "trainer.strategy is pipeline, which trains on the whole graph: there are no batches to sample or pack; "
            "run `graphsys train`"
        )
    workers = run.cluster.num_workers
    if workers > 1:
        raise ConfigError(
            f"cluster.num_workers is {workers}, and windows made ahead serve one process; run `graphsys train`, where "
            f"every worker makes the windows of its own share"
        )
    with claimed_folder(run.out):
        return _prepare(run, progress, pack=pack, overwrite=overwrite)


def _prepare(run: RunConfig, progress: Progress, *, pack: bool, overwrite: bool) -> PrepareResult:
    job = open_training(run, overwrite=overwrite)
    if job.finished:
        skipped = {name: StageReport(name=name, skipped=True) for name in ("check", "sample", "pack")}
        return PrepareResult(stages=skipped, windows={})
    check = job.check(progress, features=pack)
    node, degree = training_nodes(job.store, job.node_type), job.batch_model.needs_degree
    with WindowFeed(run, job.store, node, with_degree=degree, device=job.device, overwrite=overwrite) as feed:
        check.remember(RunFolder(run.out).store_checked)
        if pack:
            feed.prepare(progress, _START if job.earlier is None else job.earlier.cursor)
        else:
            feed.sample(progress)
        return PrepareResult(stages={"check": check.report, **feed.reports}, windows=_windows(feed))


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
