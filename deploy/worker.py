"""What runs in each worker under Ray: it trains, and leaves a refusal where the program that started it finds it.

The configuration travels as plain values; graphsys is what is installed where the worker runs.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from graphsys.core import errors
from graphsys.core.errors import GraphsysError
from graphsys.storage.files import make_folder, write_bytes
from graphsys.storage.manifest import open_sealed_json, sealed_json

# strategy -> module of its ``train_worker(run, *, rank, world_size, progress) -> stages``
WORKERS = {"minibatch": "graphsys.trainers.data_parallel", "pipeline": "graphsys.trainers.pipeline.worker"}


def work(config: dict[str, Any]) -> None:
    """Take one worker's part of a training.

    Args:
        config: ``run``, the resolved configuration; ``folder``, which the program that started the workers reads;
            ``path``, where to look for modules besides; ``version``, of graphsys there.

    Raises:
        GraphsysError: The run is refused; the next start of the workers ends at once, and does not try again.
    """
    import ray.train

    from graphsys.core.config import parse_run
    from graphsys.core.progress import SILENT
    from graphsys.deploy.relay import FileProgress
    from graphsys.trainers.outcome import write_stages

    folder = Path(config["folder"])
    if read_refusal(folder) is not None:
        return
    sys.path += [path for path in config["path"] if path not in sys.path]
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    try:
        _check_version(config["version"])
        run = parse_run(config["run"])
        train = import_module(WORKERS[run.trainer.strategy]).train_worker
        progress = FileProgress(progress_path(folder)) if rank == 0 else SILENT
        stages = train(run, rank=rank, world_size=world_size, progress=progress)
        if rank == 0 and stages:
            write_stages(run, stages)
    except errors.ClusterError:
        raise  # another worker was lost; the next start may go well
    except GraphsysError as error:
        leave_refusal(folder, error)
        raise


def _check_version(expected: str) -> None:
    import graphsys

    if graphsys.__version__ != expected:
        raise errors.ConfigError(
            f"the cluster has graphsys {graphsys.__version__} and this machine has {expected}; install the same "
            f"version on both"
        )


def progress_path(folder: Path) -> Path:
    """Return the file that the first worker reports its progress to."""
    return folder / "progress.jsonl"


def leave_refusal(folder: Path, error: GraphsysError) -> None:
    """Leave an error for :func:`read_refusal`; the first one stays.

    Raises:
        DiskError: The system refused.
    """
    make_folder(folder)
    if not _refusal(folder).is_file():
        write_bytes(_refusal(folder), sealed_json({"kind": type(error).__name__, "text": str(error)}))


def read_refusal(folder: Path) -> GraphsysError | None:
    """Return the error that a worker left; None when there is none."""
    if not _refusal(folder).is_file():
        return None
    said = open_sealed_json(_refusal(folder))
    kind = getattr(errors, said["kind"], GraphsysError)
    error: GraphsysError = kind(said["text"])
    return error


def _refusal(folder: Path) -> Path:
    return folder / "refusal.json"
