"""The batches of a run, for training and for validation: plans, windows and loaders put together."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

import torch

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport
from graphsys.core.progress import Progress
from graphsys.core.types import LoaderCursor, NodeIds
from graphsys.samplers.schedule import Schedule
from graphsys.storage.features import FeatureReader
from graphsys.storage.store import Store
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.budget import plan_run, train_schedule, val_schedule
from graphsys.trainers.loader import Loader
from graphsys.trainers.read_ahead import LoaderStats
from graphsys.trainers.rows import open_reader
from graphsys.trainers.windows import WindowSet

_START = LoaderCursor(epoch=0, next_batch_id=0)


class WindowFeed:
    """Gives out mini-batches from windows on disk; see :class:`graphsys.trainers.loop.Feed`.

    Args:
        run: the run.
        store: its store.
        node: [*] global ids of the training nodes.
        with_degree: whether batches carry in-degrees.
        device: where the batches' tensors go.
        overwrite: replace windows of another store or other sampler settings instead of refusing them.
        claim: descriptor of the run folder's claim, see :func:`graphsys.storage.files.claimed_folder`; needed to train
            in a folder that another process may want.
        rank, world_size: which worker's share of the training batches; the first worker validates.

    Raises:
        MemoryBudgetError, ConfigError: The budgets are too small; the message says what would do.
        ArtefactError: The store has no features.
    """

    def __init__(
        self, run: RunConfig, store: Store, node: NodeIds, *,
        with_degree: bool, device: torch.device, overwrite: bool, claim: int | None = None,
        rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        name = store.node_type(run.task.node_type).name
        val_node = store.split(name, "val")
        train = train_schedule(run, node, rank=rank, world_size=world_size)
        val = val_schedule(run, val_node) if val_node.size and rank == 0 else None
        edge_type = store.edge_type_within(name)
        self._features = store.features(name)
        self.plans = plan_run(run, store, store.topology(edge_type), train, val)
        # Fresh samples are drawn by the producer, which then holds the topology.
        in_memory = self.plans.train.mode == "memory" and train.samples == "frozen"
        topology = store.topology(edge_type, in_memory=in_memory)
        self._device = device
        self._memory = run.memory
        self._readers: dict[str, FeatureReader] = {}
        self._open: Loader | None = None  # of the training batches
        self._closed = LoaderStats()  # of the loaders of training batches closed so far
        self._validated = LoaderStats()  # of those of validation batches, and of reading all rows into memory
        self.windows = {
            split: WindowSet(
                run, store, schedule, plan,
                split=split, topology=topology, with_degree=with_degree, overwrite=overwrite, claim=claim,
            )
            for split, schedule, plan in (("train", train, self.plans.train), ("val", val, self.plans.val))
            if schedule is not None and plan is not None
        }  # fmt: skip

    @property
    def schedule(self) -> Schedule:
        """Which training batches this worker takes."""
        return self.windows["train"].schedule

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all workers take the training batches of an epoch."""
        return self.schedule.steps_per_epoch

    @property
    def batches_per_epoch(self) -> int:
        """Training batches per epoch, those of all workers."""
        return self.schedule.epoch_batches

    def num_seeds(self, first: int, stop: int) -> int:
        """Return the number of seeds in the training batches [first, stop) of an epoch."""
        return self.schedule.num_seeds(first, stop)

    @property
    def validates(self) -> bool:
        """Whether this worker runs over validation batches."""
        return "val" in self.windows

    @property
    def validates_alone(self) -> bool:
        """Whether the training batches must be closed before the validation batches fit into memory."""
        return not self.plans.together

    @property
    def producer_deaths(self) -> int:
        """How often the process that makes windows died and was replaced."""
        return sum(windows.producer_deaths for windows in self.windows.values())

    @property
    def reports(self) -> dict[str, StageReport]:
        """What the stages "sample" and "pack" cost so far, over both splits."""
        total = {name: StageReport(name=name, skipped=True) for name in ("sample", "pack")}
        for windows in self.windows.values():
            for name, part in windows.reports.items():
                total[name].add(part)
        return total

    def prepare(self, progress: Progress, cursor: LoaderCursor) -> None:
        """Make the windows that must be there before the batch at ``cursor`` is taken.

        Raises:
            StaleArtefactError: The folder holds windows of another store or other sampler settings.
            MemoryBudgetError, InputError, CorruptError, DiskError: Making them failed.
        """
        if "val" in self.windows:
            self.windows["val"].prepare(progress)
        train = self.windows["train"]
        schedule = self.schedule
        position = cursor.epoch * schedule.batches_per_epoch + schedule.index(cursor.next_batch_id)
        position %= max(schedule.num_batches, 1)
        train.prepare(progress, position // train.plan.window_batches)

    def sample(self, progress: Progress) -> None:
        """Make the samples of what :meth:`prepare` makes before the first step. Raises as :meth:`prepare`."""
        for windows in self.windows.values():
            windows.sample(progress)

    @contextmanager
    def train(self, cursor: LoaderCursor) -> Iterator[Iterator[MiniBatch | None]]:
        """Open one batch per step from ``cursor`` to the end of the last epoch; None in steps without one."""
        with self._loader("train", cursor) as loader:
            self._open = loader
            try:
                yield _by_step(iter(loader), self.schedule, cursor)
            finally:
                self._open = None
                self._closed.add(loader.stats)

    def validation(self) -> AbstractContextManager[Iterator[MiniBatch]] | None:
        """Open one pass over the validation batches; None when there are no validation nodes."""
        return self._validation() if self.validates else None

    @contextmanager
    def _validation(self) -> Iterator[Iterator[MiniBatch]]:
        with self._loader("val", _START) as loader:
            yield iter(loader)
            self._validated.add(loader.stats)

    def _loader(self, split: str, cursor: LoaderCursor) -> Loader:
        windows = self.windows[split]
        # All rows in memory serve both splits; readers of the disk count their bytes, each for one.
        key = "memory" if windows.plan.mode == "memory" else split
        if key not in self._readers:
            self._readers[key] = open_reader(self._features, windows.plan, memory=self._memory)
            if key == "memory":
                self._validated.read_bytes += self._features.spec.nbytes
                self._validated.useful_bytes += self._features.spec.nbytes
        return Loader(windows, self._features, self._readers[key], cursor=cursor, device=self._device)

    @property
    def mode(self) -> str:
        """How feature rows reach the training batches."""
        return self.plans.train.mode

    def stats(self) -> LoaderStats:
        """Return what the training batches took so far, validation left out."""
        total = LoaderStats()
        total.add(self._closed)
        if self._open is not None:
            total.add(self._open.stats)
        return total

    def all_stats(self) -> LoaderStats:
        """Return what all batches took so far, and reading all rows into memory."""
        total = self.stats()
        total.add(self._validated)
        return total

    def close(self) -> None:
        """Stop every thread and let go of memory."""
        for windows in self.windows.values():
            windows.close()
        for reader in self._readers.values():
            reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _by_step(batches: Iterator[MiniBatch], schedule: Schedule, cursor: LoaderCursor) -> Iterator[MiniBatch | None]:
    """Yield what a worker has in each step of all workers, which take the ids [k * world_size, (k + 1) * world_size).

    A resumed run may find that workers took some of these before, when there were more or fewer of them.
    """
    for epoch in range(cursor.epoch, schedule.epochs):
        first = cursor.next_batch_id if epoch == cursor.epoch else 0
        for step in range(first // schedule.world_size, schedule.steps_per_epoch):
            batch_id = step * schedule.world_size + schedule.rank
            # Not kept in a name here: its buffers are the next batch's.
            yield next(batches) if first <= batch_id < schedule.epoch_batches else None
