"""Training, whole: from a run's config to the checkpoint it ends with, continued where an earlier call broke off."""

from pathlib import Path

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress
from graphsys.storage.files import claimed_folder
from graphsys.storage.store_check import StoreCheck
from graphsys.trainers.calls import record_call
from graphsys.trainers.checkpoint import Checkpoint, load_checkpoint
from graphsys.trainers.device import exact_torch
from graphsys.trainers.feed import WindowFeed
from graphsys.trainers.logs import RunLog
from graphsys.trainers.loop import TrainingLoop
from graphsys.trainers.objective import training_nodes
from graphsys.trainers.opening import open_training
from graphsys.trainers.pipeline.fit import fit_pipeline
from graphsys.trainers.result import TrainResult, training_result
from graphsys.trainers.resume import forget, take_over
from graphsys.trainers.run_folder import RunFolder, write_config
from graphsys.trainers.state import TrainState, new_state
from graphsys.trainers.step import Setting
from graphsys.trainers.window_maker import remove_windows


def fit(
    run: RunConfig, *, progress: Progress = SILENT, overwrite: bool = False, check: StoreCheck | None = None
) -> TrainResult:
    """Train to the end and return what came out; whatever an earlier call finished is not done again.

    A call that was interrupted, even killed, is continued by the next one and ends with the same weights, bit by bit.
    More ``trainer.epochs`` than an earlier call had continue it.

    Args:
        run: the run; its folder receives windows, checkpoints and logs.
        overwrite: Train anew where the folder holds a training, of this run or another one.
        check: The check of the store's arrays, where the caller has made it; None makes it here.

    Raises:
        StaleArtefactError: The folder holds a training or windows of another store or with other settings.
        ConfigError, InputError: The run does not fit the store, or the loss is no number any more.
        MemoryBudgetError: The memory budget is too small; the message says what would do.
        ArtefactError, CorruptError, DiskError: The store or an artefact of the run cannot be used.
    """
    if run.trainer.strategy == "pipeline":
        return fit_pipeline(run, progress=progress, overwrite=overwrite)
    with claimed_folder(run.out) as claim:
        result = _fit(run, progress, claim, overwrite=overwrite, check=check)
        if run.sampler.samples == "fresh":  # early stopping, and a kill after the last step, leave some
            remove_windows(RunFolder(run.out).windows("train"))
        return result


def _fit(run: RunConfig, progress: Progress, claim: int, *, overwrite: bool, check: StoreCheck | None) -> TrainResult:
    job = open_training(run, overwrite=overwrite)
    earlier, device = job.earlier, job.device
    if earlier is not None and job.finished:
        return _skipped(run, earlier)
    check = check or job.check(progress)
    node = training_nodes(job.store, job.node_type)
    setting = Setting(config=run.trainer, objective=job.objective, device=device)
    degree = job.batch_model.needs_degree
    with (
        exact_torch(device, run.trainer.threads),
        WindowFeed(run, job.store, node, with_degree=degree, device=device, overwrite=overwrite, claim=claim) as feed,
    ):
        state = new_state(job.batch_model, run.trainer, device)
        if earlier is not None:
            take_over(state, earlier)
        if overwrite:
            forget(run)
        write_config(run)
        check.remember(RunFolder(run.out).store_checked)
        record_call(RunFolder(run.out).logs, step=state.step, device=str(device))
        feed.prepare(progress, state.step)
        before = _written(feed)
        with measure("train") as report:
            path = _train(run, state, setting, feed, progress, lines=_log_lines(earlier), parents=job.parents)
        _fill_report(report, feed, by_producer=_written(feed) - before)
    stages = {"check": check.report, **feed.reports, "train": report}
    return training_result(run, load_checkpoint(path), stages, skipped=False)


def _log_lines(earlier: Checkpoint | None) -> int:
    return 0 if earlier is None else int(earlier.state["log_lines"])


def _train(
    run: RunConfig,
    state: TrainState,
    setting: Setting,
    feed: WindowFeed,
    progress: Progress,
    *,
    lines: int,
    parents: dict[str, str],
) -> Path:
    with RunLog(RunFolder(run.out).logs, num_lines=lines, step=state.step) as log:
        return TrainingLoop(run, state, setting, feed, log, parents=parents).run(progress)


def _written(feed: WindowFeed) -> int:
    return sum(report.device_bytes_written for report in feed.reports.values())


def _fill_report(report: StageReport, feed: WindowFeed, *, by_producer: int) -> None:
    stats = feed.all_stats()
    # The kernel's counters also hold what the producer of the next windows read and wrote meanwhile.
    report.device_bytes_read = stats.read_bytes
    report.device_bytes_written = max(report.device_bytes_written - by_producer, 0)
    report.useful_bytes = stats.useful_bytes
    report.details = {
        "loader": stats.as_dict(),
        "plan": feed.plans.train.as_dict(),
        "producer_deaths": feed.producer_deaths,
    }


def _skipped(run: RunConfig, earlier: Checkpoint) -> TrainResult:
    stages = {name: StageReport(name=name, skipped=True) for name in ("check", "sample", "pack", "train")}
    return training_result(run, earlier, stages, skipped=True)
