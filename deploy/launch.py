"""Training under Ray: starts the workers of a run, shows what they do, has lost ones replaced, returns the result."""

import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import graphsys
from graphsys.core.config import RunConfig
from graphsys.core.errors import ClusterError, ConfigError
from graphsys.core.machine import cores
from graphsys.core.progress import Progress
from graphsys.deploy.ray_session import Cluster, cluster_of
from graphsys.deploy.relay import Replay
from graphsys.deploy.worker import progress_path, read_refusal, work
from graphsys.storage.files import claimed_folder, make_folder, remove_path
from graphsys.storage.store_check import StoreCheck
from graphsys.trainers.data_parallel import check_workers
from graphsys.trainers.objective import training_nodes
from graphsys.trainers.opening import Training, open_training
from graphsys.trainers.outcome import read_outcome
from graphsys.trainers.result import TrainResult, skipped_result
from graphsys.trainers.resume import forget
from graphsys.trainers.run_folder import RunFolder
from graphsys.trainers.window_files import remove_all_windows

_POLL_S = 0.2


def needs_cluster(run: RunConfig) -> bool:
    """Whether the run trains under Ray, and not in this process."""
    return run.cluster.world_size > 1 or run.cluster.address != "local"


def on_driver(run: RunConfig) -> RunConfig:
    """Return the run as the process that starts its workers plans and evaluates it: GPUs may be the workers' alone."""
    if not needs_cluster(run) or run.trainer.device != "cuda":
        return run
    return run.model_copy(update={"trainer": run.trainer.model_copy(update={"device": "auto"})})


def launch(
    run: RunConfig,
    progress: Progress,
    *,
    overwrite: bool = False,
    check: StoreCheck | None = None,
    on_start: Callable[[], object] | None = None,
) -> TrainResult:
    """Train under Ray to the end and return what came out; see :func:`graphsys.trainers.fit.fit`.

    The run's folder and its store must lie where every worker sees them. Workers that are lost are replaced
    ``cluster.max_failures`` times; all then go on from the newest checkpoint, and end with the same weights.

    Raises:
        ConfigError: The cluster does not answer, or has too few CPUs or GPUs.
        ClusterError: Workers were lost more often than that, or the cluster was.
        GraphsysError: A worker's refusal; as :func:`graphsys.trainers.fit.fit`.
    """
    with claimed_folder(run.out):
        job = open_training(on_driver(run), overwrite=overwrite)
        if job.earlier is not None and job.finished:
            return skipped_result(run, job.earlier)
        _refuse_early(job)
        checked = check or job.check(progress)

        def begin() -> None:
            if overwrite:
                forget(run)
                remove_all_windows(run.out)
            checked.remember(RunFolder(run.out).store_checked)
            if on_start is not None:
                on_start()

        _train(_absolute(run), progress, begin)
        result = read_outcome(run)
        remove_path(RunFolder(run.out).cluster)
        return replace(result, stages={**result.stages, "check": checked.report})


def _absolute(run: RunConfig) -> RunConfig:
    cache = run.cluster.store_cache
    cluster = run.cluster.model_copy(update={"store_cache": None if cache is None else cache.absolute()})
    return run.model_copy(update={"store": run.store.absolute(), "out": run.out.absolute(), "cluster": cluster})


def _refuse_early(job: Training) -> None:
    """Refuse what can be refused before a cluster is there."""
    run = job.run
    if run.trainer.strategy == "minibatch":
        check_workers(run, job.store, run.cluster.num_workers)
    else:
        training_nodes(job.store, job.node_type)
    if run.cluster.address == "local":
        _check_cpus(run, cores(), "this machine")


def _check_cpus(run: RunConfig, cpus: int, where: str) -> None:
    workers, each = run.cluster.world_size, max(run.cluster.threads, 1)
    if workers * each > cpus:
        if run.trainer.strategy == "pipeline":
            raise ConfigError(
                f"cluster.stages is {run.cluster.stages} and cluster.ways is {run.cluster.ways}, which makes {workers} "
                f"processes of {each} CPU{'s' if each > 1 else ''} each, and {where} has {cpus} in all; lower stages "
                f"or ways, or name a larger cluster in cluster.address"
            )
        raise ConfigError(
            f"cluster.num_workers is {workers}, each with {each} CPU{'s' if each > 1 else ''}, and {where} has {cpus} "
            f"in all; lower cluster.num_workers{' or cluster.threads' if each > 1 else ''}, or name a larger "
            f"cluster in cluster.address"
        )


def _train(run: RunConfig, progress: Progress, begin: Callable[[], None]) -> None:
    """Train on the run's cluster; ``begin`` is called once that is there and large enough, nothing written before."""
    folder = RunFolder(run.out).cluster
    with cluster_of(run, progress) as cluster:
        if cluster.dashboard:
            token = "" if cluster.token is None else f"; until this training ends, its token is {cluster.token}"
            progress.message(f"Ray dashboard: {cluster.dashboard}{token}")
        _check_cpus(run, cluster.cpus, "the cluster")
        resolved = _with_device(run, cluster)
        begin()
        remove_path(folder)  # an earlier launch's refusal would end this one
        make_folder(folder)
        replay = Replay(progress_path(folder), progress)
        progress.message(f"starting {run.cluster.world_size} workers")
        try:
            error = _fit_beside(resolved, folder, replay)
        finally:
            replay.close()
    if (refusal := read_refusal(folder)) is not None:
        raise refusal
    if error is not None:
        raise _lost(run, error) from error


def _with_device(run: RunConfig, cluster: Cluster) -> RunConfig:
    """Return the run with the device that all its workers have, so that they talk over one transport."""
    workers, wanted = run.cluster.world_size, run.trainer.device
    if wanted == "cuda" and cluster.gpus < workers:
        raise ConfigError(
            f"trainer.device is cuda and cluster.num_workers is {workers}, but the cluster has {cluster.gpus} GPUs; "
            f"each worker takes one: lower cluster.num_workers, or set trainer.device to cpu"
        )
    device = "cuda" if wanted != "cpu" and cluster.gpus >= workers else "cpu"
    return run.model_copy(update={"trainer": run.trainer.model_copy(update={"device": device})})


def _fit_beside(run: RunConfig, folder: Path, replay: Replay) -> Exception | None:
    """Run Ray's trainer in a thread, and show what the workers say meanwhile; return the error that it ended with.

    In this thread Ray would take over Ctrl-C, and end in silence.
    """
    trainer = _trainer(run, folder)
    ended: list[Exception] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told where the workers were started
            ended.append(error)

    thread = threading.Thread(target=fit, name="graphsys-launch", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)
        replay.poll()
    replay.poll()
    return ended[0] if ended else None


def _trainer(run: RunConfig, folder: Path) -> Any:
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig, LoggingConfig, ScalingConfig
    from ray.train.v2.api.config import RunConfig as RayRunConfig

    cluster, gpu = run.cluster, run.trainer.device == "cuda"
    resources = {"CPU": float(max(cluster.threads, 1)), **({"GPU": 1.0} if gpu else {})}
    config = {
        "run": run.resolved(),
        "folder": str(folder),
        "path": [path for path in sys.path if path],
        "version": graphsys.__version__,
    }
    settings: Any = RayRunConfig(
        name=f"graphsys-{uuid.uuid4().hex[:8]}",
        storage_path=str(folder / "ray"),
        failure_config=FailureConfig(max_failures=cluster.max_failures, controller_failure_limit=cluster.max_failures),
        logging_config=LoggingConfig(log_level="ERROR"),
    )
    return TorchTrainer(
        work,
        train_loop_config=config,
        torch_config=TorchConfig(timeout_s=max(int(cluster.timeout), 1)),
        scaling_config=ScalingConfig(num_workers=cluster.world_size, use_gpu=gpu, resources_per_worker=resources),
        run_config=settings,
    )


def _lost(run: RunConfig, error: Exception) -> ClusterError:
    failures: dict[int, Exception] = getattr(error, "worker_failures", {})
    last = "; ".join(f"worker {rank}: {_last_line(failure)}" for rank, failure in sorted(failures.items()))
    allowed = run.cluster.max_failures
    why = (
        f"with a lost worker, after {allowed} of {allowed} new starts (cluster.max_failures): {last}"
        if last
        else f"because the cluster was lost: {_last_line(error).rstrip('.')}"
    )
    return ClusterError(
        f"{run.out}: training broke off {why}. Run the same command again to go on from the newest checkpoint"
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
