"""Data-parallel training: one worker's part of it. Batches are spread over the workers, every worker has all weights.

The batches of an epoch, their order and their draws are those of one worker. In each step worker r takes the batch
k * world_size + r; in the last step of an epoch some workers may have none, and join with weight 0. Gradients are
averaged over all seeds of the step, so a step of n workers is one of an n times larger batch, at the learning rate that
the run names. A run goes on with another number of workers at the first batch that none of them took.

Every worker makes windows of its own share in ``windows/rank-K``, plans its own cache, and keeps to ``memory`` and
``pack.disk`` by itself. The first worker validates, and writes checkpoints and logs.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, DiskError
from graphsys.core.metrics import StageReport
from graphsys.core.progress import Progress
from graphsys.storage.files import claimed_folder, is_claimed
from graphsys.storage.store import Store
from graphsys.trainers.budget import train_schedule
from graphsys.trainers.device import own_threads
from graphsys.trainers.fit import train_opened
from graphsys.trainers.objective import training_nodes
from graphsys.trainers.opening import Training, open_training
from graphsys.trainers.process_team import ProcessTeam
from graphsys.trainers.run_folder import RunFolder
from graphsys.trainers.team import Team
from graphsys.trainers.window_files import remove_windows
from graphsys.trainers.worker_store import worker_store

_CLAIM_S = 60.0  # a worker that was killed, and its producer, have let go of their windows by then
_CLAIM_EVERY_S = 0.2


def train_worker(run: RunConfig, *, rank: int, world_size: int, progress: Progress) -> dict[str, StageReport]:
    """Take this worker's part of a training to its end and return what its stages cost; nothing where it had ended.

    Every worker of the default process group calls this. A training that broke off is continued from its newest
    checkpoint, whatever the number of workers was; with the same number it ends with the same weights, bit by bit.

    Args:
        rank, world_size: Of the process group, which the caller has made, with a time limit for every wait.

    Raises:
        ConfigError: There are more workers than batches in an epoch; or as :func:`graphsys.trainers.fit.fit`.
        DiskError: The workers do not see the same run folder; or as :func:`graphsys.trainers.fit.fit`.
        StaleArtefactError, InputError, MemoryBudgetError, ArtefactError, CorruptError: As
            :func:`graphsys.trainers.fit.fit`.
        RuntimeError: Another worker was lost, or did not come within the time limit.
    """
    team = ProcessTeam(timeout_s=run.cluster.timeout)
    if (rank, world_size) != (team.rank, team.world_size):
        raise ValueError(f"worker {rank} of {world_size} is worker {team.rank} of {team.world_size} in its group")
    run = with_own_threads(run, world_size)
    windows = RunFolder(run.out).windows("train", rank=rank, world_size=world_size)
    with _claimed_soon(windows.parent) as claim:
        job = _open_together(run, team, worker_store(run, progress))
        if job.finished:
            return {}
        check_workers(run, job.store, world_size)
        _, stages = train_opened(job, job.check(progress), progress, claim, team=team)
        if run.sampler.samples == "fresh":
            remove_windows(windows)
        team.wait()
        return stages


def check_workers(run: RunConfig, store: Store, world_size: int) -> None:
    """Refuse more workers than an epoch has batches.

    Raises:
        ConfigError: There are more.
        InputError: The graph has no training nodes.
    """
    node = training_nodes(store, store.node_type(run.task.node_type).name)
    batches = train_schedule(run, node).epoch_batches
    if batches < world_size:
        raise ConfigError(
            f"cluster.num_workers is {world_size}, and an epoch has {batches} batches of {run.sampler.batch_size} "
            f"seeds for {node.size:,} training nodes; lower cluster.num_workers to {batches}, or sampler.batch_size"
        )


def with_own_threads(run: RunConfig, world_size: int) -> RunConfig:
    """Return the run with this worker's threads: ``cluster.threads``, or its share of the machine's cores.

    See :func:`graphsys.trainers.device.own_threads`.
    """
    threads = own_threads(run.cluster, world_size)
    trainer = run.trainer.model_copy(update={"threads": run.trainer.threads or threads})
    sampler = run.sampler.model_copy(update={"threads": run.sampler.threads or threads})
    return run.model_copy(update={"trainer": trainer, "sampler": sampler})


def _open_together(run: RunConfig, team: Team, place: Path) -> Training:
    """Open the run, whose store lies at ``place``; all workers go on from the same checkpoint."""
    job = open_training(run, place=place)
    step = -1 if job.earlier is None else job.earlier.step
    if (led := team.told(lambda: step)) != step:
        raise DiskError(
            f"{run.out}: worker {team.rank} finds the checkpoint of step {step} there, and worker 0 that of step {led} "
            f"(-1: none); let 'out' be a folder that all workers share"
        )
    return job


@contextmanager
def _claimed_soon(folder: Path) -> Iterator[int]:
    """Claim a folder; one that a worker holds who is being replaced is waited for, for a minute.

    Raises:
        DiskError: Another process still holds it.
    """
    deadline = time.monotonic() + _CLAIM_S
    while _held(folder) and time.monotonic() < deadline:
        time.sleep(_CLAIM_EVERY_S)
    with claimed_folder(folder) as claim:
        yield claim


def _held(folder: Path) -> bool:
    try:
        return folder.is_dir() and is_claimed(folder)
    except DiskError:
        if folder.is_dir():
            raise
        return False  # it went away in between
