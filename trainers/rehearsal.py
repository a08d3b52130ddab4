"""A short training, thrown away: how long a batch takes in the company that it has in the real one.

Steps share the cores and the memory with the threads that read, check and assemble the next batches. So they are timed
while the real loader brings in drawn batches at the same pace, one rehearsal for each mode.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from graphsys.core.config import RunConfig
from graphsys.core.metrics import device_bytes
from graphsys.core.types import Topology
from graphsys.core.units import MIB
from graphsys.models.base import BatchModel
from graphsys.samplers.expansion import Drawing
from graphsys.samplers.offline import window_by_groups
from graphsys.samplers.schedule import Schedule
from graphsys.storage.features import DirectFeatures, FeatureReader
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.store import Store
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.company import Company, rehearse_company
from graphsys.trainers.device import exact_torch, resolve_device
from graphsys.trainers.drawn_packing import has_room
from graphsys.trainers.drawn_windows import DrawnBatch, DrawnWindows, draw_window
from graphsys.trainers.engine_speed import EngineSpeed, measure_engine
from graphsys.trainers.loader import Loader
from graphsys.trainers.making_rehearsal import MakingRehearsal
from graphsys.trainers.objective import Objective, Scores
from graphsys.trainers.plan import PackPlan
from graphsys.trainers.producer import MakingTask, ProducerJob, TaskRequest, TaskRounds
from graphsys.trainers.rehearsed_steps import Steps, enough
from graphsys.trainers.rows import open_reader, open_rows
from graphsys.trainers.scratch import scratch_folder
from graphsys.trainers.state import new_state
from graphsys.trainers.steady_heap import steady_heap
from graphsys.trainers.step import Setting, score_batch, train_step

_PASSES = 1 << 20  # over a drawn window: more than anyone waits for
_WINDOW_BYTES = 512 * MIB  # most that a window takes, and of the free space a share
_FREE_SHARE = 8
_TABLE_BYTES = 128 * MIB  # of rows held in memory: as many as leave the processor's caches behind
_ALONE = 4  # steps with nothing beside them
_FEW = 4  # batches that are sampled to tell how many others are
_MOST_SAMPLED = 256
_WINDOW_SECONDS = 1  # about, in which as many are sampled as will go
_SAMPLING_SECONDS = 1.5  # of such windows, at least


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast batches go, reading, assembling and steps together."""

    start_s: float  # seconds that the first batches take longer
    batch_s: float
    cpu_s: float  # of all cores together, per batch
    load_bytes_s: float = float("inf")  # bytes per second at which rows are brought into memory beforehand
    fill_s: float = 0.0  # seconds in which the cache gets the rows that frozen samples start with
    company: Company | None = None  # how windows made beside it slow it down; None: not rehearsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Seconds per batch with nothing beside it."""

    step_s: float  # forward, backward and optimizer
    forward_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How fast windows are sampled and written, with nothing beside it."""

    batch_s: float
    window_batches: int  # of the windows that were sampled
    read_bytes: float | None = None  # of the device per batch, where edges are read by groups; None: they are mapped


class Rehearsal:
    """Rehearses with one model, which is changed by it; see :func:`open_rehearsal`.

    Args:
        run: the run, ``out`` a scratch folder.
        model: the run's model.
        batches: what is trained on.
    """

    def __init__(
        self, run: RunConfig, store: Store, topology: Topology, model: BatchModel, objective: Objective,
        batches: Sequence[DrawnBatch],
    ) -> None:  # fmt: skip
        self._run = run
        self._store = store
        self._topology = topology
        self._model = model
        self._batches = batches
        self._device = resolve_device(run.trainer)
        self._setting = Setting(config=run.trainer, objective=objective, device=self._device)
        self._sampled: dict[bool, Sampling] = {}  # by whether edges are read by groups
        self._packed: dict[PackPlan, EngineSpeed] = {}
        self._state = new_state(model, run.trainer, self._device)
        self._features = store.features(store.node_type(run.task.node_type).name)

    @property
    def forward_edges(self) -> int:
        """Edges that the forward pass of :meth:`alone` runs over, all layers together."""
        return sum(hop.indices.shape[0] for hop in self._batches[0].sampled.hops)

    def alone(self) -> Alone:
        """Return what a step and a forward pass take by themselves."""
        drawn = self._batches[0]
        x = np.random.default_rng(0).standard_normal((drawn.sampled.num_nodes, self._features.shape[1]), np.float32)
        batch = MiniBatch.assemble(drawn.sampled, x, drawn.y, epoch=0).to(self._device)
        with steady_heap():
            step_s = self._median(lambda: self._train(batch))
        return Alone(step_s=step_s, forward_s=self._median(lambda: self._infer(batch)))

    @contextmanager
    def pace(
        self, plan: PackPlan, *, fetched: float, loaded: float, trains: bool, beside: Schedule | None = None
    ) -> Iterator[Pace]:
        """Give how fast batches of a plan go; their loader and its buffers stay until the block ends.

        Args:
            plan: of the batches.
            fetched: rows of a batch that come from the disk.
            loaded: rows that the cache starts with.
            trains: whether steps are taken; otherwise batches are scored, as validation does.
            beside: batches whose windows are then made beside that; None: none are.

        Raises:
            DiskError: The folder cannot be written, or the disk is full.
            CorruptError: A row of the store is not what was written.
        """
        work = self._train if trains else self._scoring()
        # A folder of its own: a rehearsal of validation may begin while that of training is still open.
        with TemporaryDirectory(dir=self._run.out) as name:
            folder = Path(name)
            with (
                self._reader(plan, folder) as (reader, num_rows, load_bytes_s),
                self._steps(plan, reader, folder, num_rows, fetched, work) as steps,
            ):
                marks = steps.take(until=enough)
                pace = Pace(
                    start_s=marks.start_s,
                    batch_s=marks.batch_s,
                    cpu_s=marks.batch_cpu_s,
                    load_bytes_s=load_bytes_s,
                    fill_s=self._fill_s(plan, reader, folder, int(loaded)),
                )
                if beside is not None:
                    pace = replace(pace, company=self._company(plan, beside, folder, steps, pace.batch_s))
                yield pace

    def _company(self, plan: PackPlan, schedule: Schedule, folder: Path, steps: Steps, batch_s: float) -> Company:
        sampling = self.sampling(schedule, plan)
        job = self._job(folder / "beside", schedule, plan, sampling.window_batches)
        alone: dict[MakingTask, float] = {"sample": sampling.batch_s}
        if plan.mode in ("packed", "cached") and has_room(folder):
            alone["pack"] = self.packing(plan).byte_s
        return rehearse_company(
            job, alone, batch_s=batch_s, train_until=lambda over: steps.take(until=lambda _: over()).ends
        )

    def sampling(self, schedule: Schedule, plan: PackPlan) -> Sampling:
        """Return how fast windows are sampled; plans for which edges are read the same way share one rehearsal.

        Args:
            schedule: which seeds make up which batch.
            plan: of those batches.

        Raises:
            MemoryBudgetError, DiskError: As :func:`graphsys.samplers.offline.sample_window`.
        """
        topology = self._topology
        if plan.mode == "memory":  # the run holds it: nothing is to be read by groups
            topology = Topology(
                indptr=topology.indptr, indices=topology.indices, weight=topology.weight,
                num_src_nodes=topology.num_src_nodes,
            )  # fmt: skip
        sampler = self._run.sampler
        drawing = Drawing(fanouts=tuple(sampler.fanouts), replace=sampler.replace, weighted=sampler.weighted)
        grouped = window_by_groups(topology, schedule, drawing, memory=plan.producer_bytes)
        if grouped not in self._sampled:
            self._sampled[grouped] = self._sample(topology, schedule, plan, grouped=grouped)
        return self._sampled[grouped]

    def _sample(self, topology: Topology, schedule: Schedule, plan: PackPlan, *, grouped: bool) -> Sampling:
        def sample(batches: int, seconds: float = 0.0) -> TaskRounds:
            job = self._job(self._run.out, schedule, plan, batches)
            return MakingRehearsal(job, self._store, topology).go_on(TaskRequest(task="sample", seconds=seconds))

        few = min(_FEW, plan.window_batches)
        sample(few)  # compiles kernels, and meets its memory for the first time
        # Many at once, as windows have them: by groups, what a batch reads depends on how many there are.
        unit_s = sample(few).unit_s
        many = max(min(int(_WINDOW_SECONDS / unit_s), plan.window_batches, _MOST_SAMPLED), few)
        before = device_bytes()[0]
        # No longer than the run itself samples.
        rounds = sample(many, min(_SAMPLING_SECONDS, schedule.num_batches * unit_s))
        read_bytes = (device_bytes()[0] - before) / rounds.units if grouped else None
        return Sampling(batch_s=rounds.unit_s, window_batches=many, read_bytes=read_bytes)

    def _job(self, out: Path, schedule: Schedule, plan: PackPlan, batches: int) -> ProducerJob:
        """Return what a producer of windows of so many batches would be told."""
        return ProducerJob(
            run=self._run.model_copy(update={"out": out}),
            store=self._store.path,
            schedule=schedule,
            plan=replace(plan, window_batches=batches),
            split="train",
            with_degree=self._model.needs_degree,
            overwrite=False,
        )

    def packing(self, plan: PackPlan) -> EngineSpeed:
        """Return how fast windows are planned and packed, in modes that do; the rows are the store's.

        Raises:
            DiskError: The folder cannot be written, or the disk is full.
        """
        if plan not in self._packed:
            self._packed[plan] = measure_engine(
                self._run.out,
                self._features,
                codec=plan.codec,
                with_rows=plan.mode == "packed",
                memory=plan.producer_bytes,
            )
        return self._packed[plan]

    @contextmanager
    def _steps(
        self, plan: PackPlan, reader: FeatureReader, folder: Path, num_rows: int, fetched: float,
        work: Callable[[MiniBatch], None],
    ) -> Iterator[Steps]:  # fmt: skip
        """Open steps of ``work`` over drawn batches, without end."""
        window = draw_window(
            folder / "drawn.pack",
            self._drawn(plan, num_rows, fetched),
            plan,
            fetched=fetched,
            num_nodes=self._topology.num_nodes,
            dim=self._features.shape[1],
        )

        def step(batch: MiniBatch) -> None:
            work(batch)
            self._settle()

        windows = DrawnWindows(window, plan, passes=_PASSES)
        with Loader(windows, self._features, reader, device=self._device) as loader, steady_heap():
            yield Steps(iter(loader), step)

    def _fill_s(self, plan: PackPlan, reader: FeatureReader, folder: Path, loaded: int) -> float:
        """Return the seconds in which a cache gets ``loaded`` rows from a packed window, by those of fewer rows."""
        if plan.mode != "packed" or not loaded:
            return 0.0
        num_rows = max(min(loaded, _TABLE_BYTES // plan.row_nbytes), 1)
        window = draw_window(
            folder / "start.pack",
            self._batches[:1],
            plan,
            fetched=0,
            num_nodes=self._topology.num_nodes,
            dim=self._features.shape[1],
            initial_rows=num_rows,
        )
        rows = open_rows(plan, self._features, reader, threads=1)
        started = time.perf_counter()
        rows.enter(window, 0)
        seconds = time.perf_counter() - started
        rows.close()
        return seconds * loaded / num_rows

    def _drawn(self, plan: PackPlan, num_rows: int, fetched: float) -> Sequence[DrawnBatch]:
        batches = self._batches
        if plan.mode == "packed":
            free = shutil.disk_usage(self._run.out).free // _FREE_SHARE
            batches = batches[: max(int(min(free, _WINDOW_BYTES) // max(fetched * plan.row_nbytes, 1)), 1)]
        if num_rows == self._features.shape[0]:
            return batches
        return [batch.within(num_rows) for batch in batches]

    @contextmanager
    def _reader(self, plan: PackPlan, folder: Path) -> Iterator[tuple[FeatureReader, int, float]]:
        """Open the reader of a plan's mode; in mode memory one of fewer rows, timed while they are brought in."""
        if plan.mode != "memory":
            reader: FeatureReader = DirectFeatures(self._features)
            try:
                yield reader, self._features.shape[0], float("inf")
            finally:
                reader.close()
            return
        num_rows = max(min(self._features.shape[0], _TABLE_BYTES // self._features.spec.row_nbytes), 1)
        rows = np.random.default_rng(0).random((num_rows, self._features.shape[1]), np.float32)
        array = FlatArray(folder / "x", write_array(folder / "x", rows))
        started = time.perf_counter()
        reader = open_reader(array, plan, memory=rows.nbytes)
        load_bytes_s = rows.nbytes / (time.perf_counter() - started)
        try:
            yield reader, num_rows, load_bytes_s
        finally:
            reader.close()

    def _train(self, batch: MiniBatch) -> None:
        train_step(self._state, batch, self._setting)

    def _scoring(self) -> Callable[[MiniBatch], None]:
        scores = Scores(self._setting.objective, self._device)
        return lambda batch: score_batch(self._state, batch, self._setting, scores)

    def _infer(self, batch: MiniBatch) -> None:
        self._model.eval()
        with torch.inference_mode():
            self._model(batch)

    def _median(self, work: Callable[[], None]) -> float:
        seconds = []
        for _ in range(1 + _ALONE):
            started = time.perf_counter()
            work()
            self._settle()
            seconds.append(time.perf_counter() - started)
        return float(np.median(seconds[1:]))  # the first call also sets up torch

    def _settle(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


@contextmanager
def open_rehearsal(
    run: RunConfig, store: Store, topology: Topology, model: BatchModel, objective: Objective,
    batches: Sequence[DrawnBatch],
) -> Iterator[Rehearsal]:  # fmt: skip
    """Open a rehearsal in a folder beside the run's, on the same disk; it is gone afterwards.

    Raises:
        DiskError: The folder cannot be made.
        ConfigError: The device cannot do what the run asks.
    """
    with scratch_folder(run.out) as scratch, exact_torch(resolve_device(run.trainer), run.trainer.threads):
        yield Rehearsal(run.model_copy(update={"out": scratch}), store, topology, model, objective, batches)
