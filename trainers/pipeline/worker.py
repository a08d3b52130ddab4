"""One process of a run whose strategy is ``pipeline``: what a launcher starts S * W times, or once in process."""

from dataclasses import dataclass

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport, measure, rss_bytes
from graphsys.core.progress import SILENT, Progress
from graphsys.storage.store_check import StoreCheck
from graphsys.trainers.calls import record_call
from graphsys.trainers.device import exact_torch
from graphsys.trainers.objective import training_nodes
from graphsys.trainers.opening import Training, open_training
from graphsys.trainers.pipeline.assemble import GraphData, assemble
from graphsys.trainers.pipeline.buffers import Buffers
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.cut_file import ensure_cut
from graphsys.trainers.pipeline.kept import load_kernels
from graphsys.trainers.pipeline.links import Links
from graphsys.trainers.pipeline.partition_file import ensure_partition, read_partition
from graphsys.trainers.pipeline.planning import Scene, process_threads
from graphsys.trainers.pipeline.returned import return_memory
from graphsys.trainers.pipeline.runtime import Runtime
from graphsys.trainers.pipeline.saved import StageFiles
from graphsys.trainers.pipeline.scoring import Scorer
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.stage_cut import StageCut
from graphsys.trainers.pipeline.training import PipelineTraining
from graphsys.trainers.resume import forget
from graphsys.trainers.run_folder import RunFolder, write_config
from graphsys.trainers.worker_store import worker_store


@dataclass(frozen=True, slots=True, kw_only=True)
class _Process:
    """One process, assembled."""

    runtime: Runtime
    table: ChunkTable
    data: GraphData


def train_worker(
    run: RunConfig,
    *,
    rank: int,
    world_size: int,
    progress: Progress = SILENT,
    overwrite: bool = False,
    cut: StageCut | None = None,
    check: StoreCheck | None = None,
) -> dict[str, StageReport]:
    """Train to the end, with the same call on all processes; checkpoints and logs are in the run's folder then.

    torch.distributed's default group must be up where ``world_size`` is more than 1, and the caller of all processes
    holds the claim of the run's folder. A call that was interrupted, even killed, is continued by the next one, with
    any number of stages and ways; with the same shape it ends with the same bits.

    Args:
        rank: Of this process: stage * ways + way.
        progress: Shows what process 0 does; the others' may be silent.
        overwrite: Train anew where the folder holds a training.
        cut: Which layers each stage runs; None: process 0 times them, or takes what an earlier call in this shape
            found, so that the slowest stage is as fast as can be. The same on all processes; the weights do not depend
            on it.
        check: The check of the store's arrays, where the caller has made it; None makes it here, in process 0.

    Returns:
        What the stages cost, in process 0; the details of stage ``train`` have the peak memory of every process.

    Raises:
        ConfigError: The run does not fit the store, the number of processes or the network, or the loss is no number.
        InputError: The graph has no training nodes.
        StaleArtefactError: The folder holds a training of another store or with other settings.
        ClusterError: Another process ended or hangs.
        ArtefactError, CorruptError, DiskError: The store or an artefact of the run cannot be used.
    """
    shape = Shape.of(run)
    shape.check_world_size(world_size)
    links = Links(shape, rank, run.cluster.timeout)
    job = open_training(run, overwrite=overwrite, place=worker_store(run, progress))
    links.share(None, 0)  # every process has seen the same checkpoints before any is written or removed
    if job.finished:
        return {}
    training_nodes(job.store, job.node_type)  # where there are none, nothing is written or removed
    stages: dict[str, StageReport] = {}
    if links.rank == 0:
        check = check or job.check(progress)
        stages["check"] = check.report
        if overwrite:
            forget(run)
        write_config(run)
        check.remember(RunFolder(run.out).store_checked)
        step = 0 if job.earlier is None else job.earlier.step
        record_call(RunFolder(run.out).logs, step=step, device=str(job.device))
    with exact_torch(job.device, process_threads(run, shape)), measure("train") as report:
        scene = Scene.of(job)
        load_kernels(scene.model, scene.data.x.shape[1])
        before = rss_bytes()
        process = _open(scene, links, progress, cut)
        files = StageFiles(process.runtime, process.table, process.data.x.shape[1])
        training = PipelineTraining(
            run, process.runtime, files, job.objective, _scorer(job, process), parents=job.parents
        )
        with measure("epochs") as epochs:
            training.start(job.earlier)
            training.run(progress)
        memory = {"peak_rss_bytes": epochs.peak_rss_bytes, "data_bytes": max(epochs.peak_rss_bytes - before, 0)}
        report.details = {"processes": links.gather(memory)}
    stages["train"] = report
    return stages


def _open(scene: Scene, links: Links, progress: Progress, cut: StageCut | None) -> _Process:
    job = scene.job
    run, store = job.run, job.store
    if links.rank == 0:
        table = ensure_partition(run, links.shape, scene.data.topology, store.fingerprint, progress)
        cut = links.share(cut or ensure_cut(scene, table, progress), 0)
    else:
        cut = links.share(None, 0)
        table = read_partition(run, links.shape, store.fingerprint)
    assert cut is not None, "process 0 has one"
    return_memory()
    runtime = assemble(
        scene.model,
        scene.data,
        table,
        links,
        cut=cut,
        objective=job.objective,
        config=run.trainer,
        allocate=Buffers(run.out, run.memory, job.device).allocate,
        device=job.device,
    )
    return_memory()
    return _Process(runtime=runtime, table=table, data=scene.data)


def _scorer(job: Training, process: _Process) -> Scorer | None:
    val = job.store.split(job.node_type, "val")
    if not val.size:
        return None
    return Scorer(runtime=process.runtime, table=process.table, objective=job.objective, y=process.data.y, node=val)
