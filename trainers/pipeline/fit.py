"""A whole training with strategy ``pipeline`` in this process, and what one on many processes left."""

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress
from graphsys.storage.files import claimed_folder
from graphsys.trainers.checkpoint import final_checkpoint, load_checkpoint
from graphsys.trainers.opening import open_training
from graphsys.trainers.pipeline.worker import train_worker
from graphsys.trainers.result import TrainResult, read_result


def fit_pipeline(run: RunConfig, *, progress: Progress = SILENT, overwrite: bool = False) -> TrainResult:
    """Train to the end in this process, one stage and one way, and return what came out.

    Raises:
        ConfigError: The run asks for several processes, or does not fit the store.
        StaleArtefactError, ArtefactError, CorruptError, DiskError: As
            :func:`graphsys.trainers.pipeline.worker.train_worker`.
    """
    skipped = open_training(run, overwrite=overwrite).finished
    with claimed_folder(run.out), measure("train") as report:
        train_worker(run, rank=0, world_size=1, progress=progress, overwrite=overwrite)
    report.skipped = skipped
    return pipeline_result(run, report)


def pipeline_result(run: RunConfig, report: StageReport) -> TrainResult:
    """Return what a finished training on any number of processes left in the run's folder.

    Args:
        report: What it cost here, as stage ``train``.

    Raises:
        ArtefactError: Training has not finished there.
    """
    final = load_checkpoint(final_checkpoint(run.out))
    return read_result(run, final, {"train": report}, skipped=report.skipped)
