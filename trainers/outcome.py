"""What the workers of a training leave for the program that started them: its result, read from the run's folder."""

from dataclasses import replace

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport
from graphsys.storage.files import make_folder, write_bytes
from graphsys.storage.manifest import open_sealed_json, sealed_json
from graphsys.trainers.checkpoint import final_checkpoint, load_checkpoint
from graphsys.trainers.result import TrainResult, read_result, skipped_result
from graphsys.trainers.run_folder import RunFolder

_STAGES = "stages.json"


def write_stages(run: RunConfig, stages: dict[str, StageReport]) -> None:
    """Leave what the stages cost; for the worker that wrote the final checkpoint.

    Raises:
        DiskError: The system refused.
    """
    folder = RunFolder(run.out).cluster
    make_folder(folder)
    write_bytes(folder / _STAGES, sealed_json({name: report.as_dict() for name, report in stages.items()}))


def read_outcome(run: RunConfig) -> TrainResult:
    """Return what a training came to that its workers have just finished.

    Raises:
        ArtefactError: It has not finished.
        CorruptError: A byte changed.
    """
    path = RunFolder(run.out).cluster / _STAGES
    final = load_checkpoint(final_checkpoint(run.out))
    if not path.is_file():  # a worker was lost between its last checkpoint and this file; the next ones had no work
        return replace(skipped_result(run, final), skipped=False)
    reports = {name: StageReport(**values) for name, values in open_sealed_json(path).items()}
    return read_result(run, final, reports)
