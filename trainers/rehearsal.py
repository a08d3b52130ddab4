"""A short training, thrown away: how long a batch takes in the company that it has in the real one.

Steps share the cores and the memory with the threads that read, check and assemble the next batches. So they are timed
while the real loader brings in drawn batches at the same pace, one rehearsal for each mode.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from graphsys.core.config import RunConfig
from graphsys.core.types import Topology
from graphsys.core.units import MIB
from graphsys.models.base import BatchModel
from graphsys.storage.disk_speed import existing_folder
from graphsys.storage.features import DirectFeatures, FeatureReader
from graphsys.storage.files import disk_errors
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.store import Store
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.device import exact_torch, resolve_device
from graphsys.trainers.drawn_windows import DrawnBatch, DrawnWindows, draw_window
from graphsys.trainers.loader import Loader
from graphsys.trainers.objective import Objective
from graphsys.trainers.plan import PackPlan
from graphsys.trainers.rows import open_reader
from graphsys.trainers.state import new_state
from graphsys.trainers.step import Setting, train_step

_STEPS = 20  # of one rehearsal
_START = 8  # of them, those that also pay for fresh buffers
_END = 4  # and those for which nothing is read ahead any more
_SECONDS = 2.0  # after which a rehearsal ends
_FEWEST = 4  # steps, however long they take
BATCHES = 6  # drawn for a window
_WINDOW_BYTES = 512 * MIB  # most that a window takes, and of the free space a share
_FREE_SHARE = 8
_TABLE_BYTES = 128 * MIB  # of rows held in memory: as many as leave the processor's caches behind
_ALONE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast batches go, reading, assembling and steps together."""

    start_s: float  # seconds that the first batches take longer
    batch_s: float
    cpu_s: float  # of all cores together, per batch
    load_bytes_s: float = float("inf")  # bytes per second at which rows are brought into memory beforehand


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Seconds per batch with nothing beside it."""

    step_s: float  # forward, backward and optimizer
    forward_s: float


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
        return Alone(
            step_s=self._median(lambda: self._train(batch)), forward_s=self._median(lambda: self._infer(batch))
        )

    def pace(self, plan: PackPlan, *, fetched: float, trains: bool) -> Pace:
        """Return how fast batches of a plan go.

        Args:
            plan: of the batches.
            fetched: rows of a batch that come from the disk.
            trains: whether steps are taken; otherwise batches run forward only.

        Raises:
            DiskError: The folder cannot be written, or the disk is full.
            CorruptError: A row of the store is not what was written.
        """
        with self._reader(plan) as (reader, num_rows, load_bytes_s):
            marks = self._run_through(plan, reader, num_rows, fetched, self._train if trains else self._infer)
        wall, busy = np.array(marks).T
        last = len(marks) - 1
        first = min(_START, last // 2)
        end = last - _END if last == _STEPS else last
        batch_s, cpu_s = ((times[end] - times[first]) / (end - first) for times in (wall, busy))
        start_s = max(wall[first] - wall[0] - first * batch_s, 0.0)
        return Pace(start_s=float(start_s), batch_s=float(batch_s), cpu_s=float(cpu_s), load_bytes_s=load_bytes_s)

    def _run_through(
        self, plan: PackPlan, reader: FeatureReader, num_rows: int, fetched: float, work: Callable[[MiniBatch], None]
    ) -> list[tuple[float, float]]:
        """Return seconds of wall and of all cores: at the start and after each batch."""
        batches = self._drawn(plan, num_rows, fetched)
        path = self._run.out / "drawn.pack"
        window = draw_window(
            path, batches, plan, fetched=fetched, num_nodes=self._topology.num_nodes, dim=self._features.shape[1]
        )
        passes = -(-_STEPS // len(batches))
        try:
            with DrawnWindows(self._run, self._store, self._topology, plan, window, passes=passes) as windows:
                marks = [(time.perf_counter(), time.process_time())]
                with Loader(windows, self._features, reader, device=self._device) as loader:
                    for batch in loader:
                        work(batch)
                        self._settle()
                        marks.append((time.perf_counter(), time.process_time()))
                        late = marks[-1][0] - marks[0][0] > _SECONDS and len(marks) > _FEWEST
                        if late or len(marks) > _STEPS:
                            break
        finally:
            path.unlink(missing_ok=True)
        return marks

    def _drawn(self, plan: PackPlan, num_rows: int, fetched: float) -> Sequence[DrawnBatch]:
        batches = self._batches
        if plan.mode == "packed":
            free = shutil.disk_usage(self._run.out).free // _FREE_SHARE
            batches = batches[: max(int(min(free, _WINDOW_BYTES) // max(fetched * plan.row_nbytes, 1)), 1)]
        if num_rows == self._features.shape[0]:
            return batches
        return [batch.within(num_rows) for batch in batches]

    @contextmanager
    def _reader(self, plan: PackPlan) -> Iterator[tuple[FeatureReader, int, float]]:
        """Open the reader of a plan's mode; in mode memory one of fewer rows, timed while they are brought in."""
        if plan.mode != "memory":
            reader: FeatureReader = DirectFeatures(self._features)
            try:
                yield reader, self._features.shape[0], float("inf")
            finally:
                reader.close()
            return
        folder = self._run.out / "rows"
        num_rows = max(min(self._features.shape[0], _TABLE_BYTES // self._features.spec.row_nbytes), 1)
        rows = np.random.default_rng(0).standard_normal((num_rows, self._features.shape[1]), np.float32)
        array = FlatArray(folder, write_array(folder, rows))
        started = time.perf_counter()
        reader = open_reader(array, plan, memory=rows.nbytes)
        load_bytes_s = rows.nbytes / (time.perf_counter() - started)
        try:
            yield reader, num_rows, load_bytes_s
        finally:
            reader.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _train(self, batch: MiniBatch) -> None:
        train_step(self._state, batch, self._setting)

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
    place = existing_folder(run.out)
    with disk_errors("write", place):
        scratch = Path(tempfile.mkdtemp(prefix=".graphsys-rehearsal-", dir=place))
    try:
        with exact_torch(resolve_device(run.trainer), run.trainer.threads):
            yield Rehearsal(run.model_copy(update={"out": scratch}), store, topology, model, objective, batches)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
