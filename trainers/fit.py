"""Training, whole: from a run's config to the checkpoint it ends with, continued where an earlier call broke off."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
from graphsys.trainers.logs import Log, RunLog, SilentLog
from graphsys.trainers.loop import TrainingLoop
from graphsys.trainers.objective import training_nodes
from graphsys.trainers.opening import Training, open_training
from graphsys.trainers.pipeline.fit import fit_pipeline
from graphsys.trainers.result import TrainResult, read_result, skipped_result
from graphsys.trainers.resume import forget, take_over
from graphsys.trainers.run_folder import RunFolder, write_config
from graphsys.trainers.state import TrainState, new_state
from graphsys.trainers.steady_heap import steady_heap
from graphsys.trainers.step import Setting
from graphsys.trainers.team import ALONE, Team
from graphsys.trainers.window_files import remove_other_shares, remove_windows


def fit(
    run: RunConfig,
    *,
    progress: Progress = SILENT,
    overwrite: bool = False,
    check: StoreCheck | None = None,
    on_start: Callable[[], object] | None = None,
) -> TrainResult:
    """Train to the end and return what came out; whatever an earlier call finished is not done again.

    A call that was interrupted, even killed, is continued by the next one and ends with the same weights, bit by bit.
    More ``trainer.epochs`` than an earlier call had continue it.

    Args:
        run: the run; its folder receives windows, checkpoints and logs.
        overwrite: Train anew where the folder holds a training, of this run or another one.
        check: The check of the store's arrays, where the caller has made it; None makes it here.
        on_start: Called once the run's folder is this training's, before the first window is made.

    Raises:
        StaleArtefactError: The folder holds a training or windows of another store or with other settings.
        ConfigError, InputError: The run does not fit the store, or the loss is no number any more.
        MemoryBudgetError: The memory budget is too small; the message says what would do.
        ArtefactError, CorruptError, DiskError: The store or an artefact of the run cannot be used.
    """
    if run.trainer.strategy == "pipeline":
        return fit_pipeline(run, progress=progress, overwrite=overwrite, check=check)
    with claimed_folder(run.out) as claim:
        result = _fit(run, progress, claim, overwrite=overwrite, check=check, on_start=on_start)
        if run.sampler.samples == "fresh":  # early stopping, and a kill after the last step, leave some
            remove_windows(RunFolder(run.out).windows("train"))
        return result


def _fit(
    run: RunConfig,
    progress: Progress,
    claim: int,
    *,
    overwrite: bool,
    check: StoreCheck | None,
    on_start: Callable[[], object] | None,
) -> TrainResult:
    job = open_training(run, overwrite=overwrite)
    if job.earlier is not None and job.finished:
        return skipped_result(run, job.earlier)
    check = check or job.check(progress)
    path, stages = train_opened(job, check, progress, claim, overwrite=overwrite, on_start=on_start)
    return read_result(run, load_checkpoint(path), stages)


def train_opened(
    job: Training,
    check: StoreCheck,
    progress: Progress,
    claim: int,
    *,
    overwrite: bool = False,
    team: Team = ALONE,
    on_start: Callable[[], object] | None = None,
) -> tuple[Path, dict[str, StageReport]]:
    """Train to the end; return the final checkpoint and what the stages cost. Every worker of ``team`` calls this.

    Args:
        claim: descriptor of the claim of the folder that receives this worker's windows.
        on_start: As in :func:`fit`; called by the worker that leads.

    Raises:
        StaleArtefactError, ConfigError, InputError, MemoryBudgetError, ArtefactError, CorruptError, DiskError: As
            :func:`fit`.
    """
    run, device = job.run, job.device
    node = training_nodes(job.store, job.node_type)
    setting = Setting(config=run.trainer, objective=job.objective, device=device)
    with (
        exact_torch(device, run.trainer.threads),
        WindowFeed(
            run, job.store, node, with_degree=job.batch_model.needs_degree, device=device, overwrite=overwrite,
            claim=claim, rank=team.rank, world_size=team.world_size,
        ) as feed,
    ):  # fmt: skip
        state = new_state(job.batch_model, run.trainer, device)
        if job.earlier is not None:
            take_over(state, job.earlier)
        if team.leads:
            _open_folder(job, check, overwrite=overwrite, world_size=team.world_size)
            if on_start is not None:
                on_start()
        team.align(state.model)
        feed.prepare(progress, state.cursor())
        if feed.validates:
            job.objective.load_metrics()
        team.wait()
        before = _written(feed)
        with measure("train") as report, steady_heap():
            path = _train(job, state, setting, feed, progress, team)
        _fill_report(report, feed, by_producer=_written(feed) - before)
    return path, {"check": check.report, **feed.reports, "train": report}


def _open_folder(job: Training, check: StoreCheck, *, overwrite: bool, world_size: int) -> None:
    run, folder = job.run, RunFolder(job.run.out)
    if overwrite:
        forget(run)
    write_config(run)
    remove_other_shares(run.out, world_size)
    check.remember(folder.store_checked)
    step = 0 if job.earlier is None else job.earlier.step
    record_call(folder.logs, step=step, device=str(job.device))


def _log_lines(earlier: Checkpoint | None) -> int:
    return 0 if earlier is None else int(earlier.state["log_lines"])


def _train(
    job: Training, state: TrainState, setting: Setting, feed: WindowFeed, progress: Progress, team: Team
) -> Path:
    logs = RunFolder(job.run.out).logs
    silent: AbstractContextManager[Log] = nullcontext(SilentLog())
    opened = RunLog(logs, num_lines=_log_lines(job.earlier), step=state.step) if team.leads else silent
    with opened as log:
        return TrainingLoop(job.run, state, setting, feed, log, parents=job.parents, team=team).run(progress)


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
