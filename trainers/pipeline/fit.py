"""A whole training with strategy ``pipeline`` in this process."""

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport
from graphsys.core.progress import SILENT, Progress
from graphsys.storage.files import claimed_folder
from graphsys.storage.store_check import StoreCheck
from graphsys.trainers.checkpoint import final_checkpoint, load_checkpoint
from graphsys.trainers.pipeline.worker import train_worker
from graphsys.trainers.result import TrainResult, read_result


def fit_pipeline(
    run: RunConfig, *, progress: Progress = SILENT, overwrite: bool = False, check: StoreCheck | None = None
) -> TrainResult:
    """Train to the end in this process, one stage and one way, and return what came out.

    Args:
        overwrite: Train anew where the folder holds a training.
        check: The check of the store's arrays, where the caller has made it.

    Raises:
        ConfigError: The run asks for several processes, or does not fit the store.
        StaleArtefactError, ArtefactError, CorruptError, DiskError: As
            :func:`graphsys.trainers.pipeline.worker.train_worker`.
    """
    with claimed_folder(run.out):
        stages = train_worker(run, rank=0, world_size=1, progress=progress, overwrite=overwrite, check=check)
    if not stages:
        skipped = {name: StageReport(name=name, skipped=True) for name in ("check", "train")}
        return read_result(run, load_checkpoint(final_checkpoint(run.out)), skipped, skipped=True)
    return read_result(run, load_checkpoint(final_checkpoint(run.out)), stages)
