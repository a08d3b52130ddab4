"""The windows of one split while a training goes through them: made ahead by another process, removed behind.

With frozen samples every window is made once and stays. With fresh samples the next one is made while the present one
is consumed, and a consumed one is removed, so that at most two lie on the disk.
"""

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Self

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport
from graphsys.core.progress import Progress, SilentProgress, task
from graphsys.core.types import Topology
from graphsys.samplers.schedule import Schedule
from graphsys.storage.files import folder_bytes
from graphsys.storage.store import Store
from graphsys.storage.window import Window
from graphsys.trainers.plan import PackPlan
from graphsys.trainers.producer import Producer, ProducerJob, WindowRequest
from graphsys.trainers.window_files import remove_partials
from graphsys.trainers.window_maker import WindowMaker

_WAIT_S = 0.1  # how often a wait looks whether it was called off


class WindowSet:
    """The windows of one split, in the order of their positions. For one loader at a time.

    Args:
        run: the run; its sampler settings, seeds and folder.
        store: where topology, features and labels come from.
        schedule: which seeds make up which batch.
        plan: mode, window size, cache size and memory.
        split: "train" or "val"; names the folder.
        topology: in-edges among the nodes of the task's type, in memory or memory-mapped.
        with_degree: whether batches carry in-degrees.
        overwrite: remove windows of another store or other sampler settings instead of refusing them.
        claim: descriptor of the run folder's claim, which the producer shares; None: the folder is unclaimed.
    """

    def __init__(
        self, run: RunConfig, store: Store, schedule: Schedule, plan: PackPlan, *,
        split: str, topology: Topology, with_degree: bool = False, overwrite: bool = False, claim: int | None = None,
    ) -> None:  # fmt: skip
        self._maker = WindowMaker(
            run, store, schedule, plan, split=split, topology=topology, with_degree=with_degree, overwrite=overwrite
        )
        job = ProducerJob(
            run=run, store=store.path, schedule=schedule, plan=plan, split=split, with_degree=with_degree,
            overwrite=overwrite,
        )  # fmt: skip
        self._producer = Producer(job, claim)
        self._split = split
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._futures: dict[int, Future[Window]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="graphsys-producer")

    @property
    def schedule(self) -> Schedule:
        """Which seeds make up which batch."""
        return self._maker.schedule

    @property
    def plan(self) -> PackPlan:
        """Mode, window size, cache size and memory."""
        return self._maker.plan

    @property
    def num_windows(self) -> int:
        """Number of windows; fresh samples have some for every epoch."""
        return self._maker.num_windows

    @property
    def reports(self) -> dict[str, StageReport]:
        """What the stages "sample" and "pack" cost so far; details count the windows made."""
        return self._maker.reports

    @property
    def producer_deaths(self) -> int:
        """How often the producer died and was replaced."""
        return self._producer.deaths

    @property
    def nbytes(self) -> int:
        """Bytes that the windows occupy on the disk now."""
        return folder_bytes(self._maker.folder) if self._maker.folder.is_dir() else 0

    @property
    def _fresh(self) -> bool:
        return self.schedule.samples == "fresh"

    def sample(self, progress: Progress, first: int = 0) -> None:
        """Make the samples alone: of all windows when they are frozen, of window ``first`` when they are fresh.

        Raises:
            StaleArtefactError: A file there holds batches of another store or of other sampler settings.
            MemoryBudgetError, DiskError: As :func:`graphsys.samplers.offline.sample_window`.
        """
        indices = self._at_hand(first)
        self._maker.tidy(self._kept(first))
        with task(progress, f"sample {self._split}", self._num_batches(indices), "batches") as bar:
            for index in indices:
                self._maker.sample(index, bar)

    def prepare(self, progress: Progress, first: int = 0) -> None:
        """Make the windows: all of them when they are frozen, window ``first`` when they are fresh.

        What is there is kept, so a killed call is continued by the next one.

        Raises:
            StaleArtefactError: A file there holds batches of another store or of other sampler settings.
            MemoryBudgetError, InputError, CorruptError, DiskError: As
                :func:`graphsys.samplers.offline.sample_window` and :func:`graphsys.storage.packer.pack_window`.
        """
        indices = self._at_hand(first)
        self._maker.tidy(self._kept(first))
        total = self._num_batches(indices)
        packs = self._maker.packs
        with (
            task(progress, f"sample {self._split}", total, "batches") as sampling,
            task(progress if packs else SilentProgress(), f"pack {self._split}", total, "batches") as packing,
        ):
            for index in indices:
                self._maker.make(index, self._maker.initial_slots(index), sampling, packing)

    def _kept(self, first: int) -> range:
        return range(first, first + 2) if self._fresh else range(self.num_windows)

    def _at_hand(self, first: int) -> range:
        return range(first, min(first + 1, self.num_windows)) if self._fresh else range(self.num_windows)

    def _num_batches(self, indices: range) -> int:
        return sum(len(self.schedule.window(index, self.plan.window_batches)) for index in indices)

    def begin(self, first: int) -> None:
        """Start to go through the windows from ``first`` on: it and the one behind it are made if they are not there.

        Raises:
            StaleArtefactError: A file there holds batches of another store or of other sampler settings.
        """
        if self._stop.is_set():
            raise ValueError(f"the windows of split '{self._split}' are closed; open them again")
        kept = self._kept(first)
        with self._lock:
            # Also a window that is not kept, and so forgotten here, may still be in the making.
            busy = any(future.running() for future in self._futures.values())
            for index, future in list(self._futures.items()):
                if index not in kept or (future.done() and future.exception() is not None):
                    self._drop(index)
            if not busy:
                self._maker.tidy(kept)
        self._request(first)
        self._request(first + 1)

    def ready(self, index: int) -> bool:
        """Whether :meth:`open` would return the window at once."""
        with self._lock:
            future = self._futures.get(index)
        return future is not None and future.done() and future.exception() is None

    def open(self, index: int, stop: threading.Event) -> Window | None:
        """Return a window, waiting until it is made; None when ``stop`` was set meanwhile.

        Raises:
            StaleArtefactError, MemoryBudgetError, InputError, CorruptError, DiskError: Making it failed.
        """
        self._request(index)
        with self._lock:
            future = self._futures[index]
        while not stop.is_set():
            if wait([future], timeout=_WAIT_S).done:
                return future.result()
        return None

    def release(self, index: int) -> None:
        """Say that a window was consumed; removes a fresh one, and lets the window after the next be made."""
        if self._fresh:
            with self._lock:
                self._drop(index)
            self._maker.remove(index)
        self._request(index + 2)

    def _request(self, index: int) -> None:
        with self._lock:
            if index not in self._futures and index < self.num_windows:
                self._futures[index] = self._pool.submit(self._produce, index)

    def _drop(self, index: int) -> None:
        self._futures.pop(index).cancel()

    def _produce(self, index: int) -> Window:
        if self._maker.find(index) is None:
            request = WindowRequest(index=index, initial_slots=self._maker.initial_slots(index))
            self._maker.add_reports(self._producer.make(request))
        return self._maker.open(index)

    def close(self) -> None:
        """Kill the producer and wait for its end; what it was making vanishes."""
        self._stop.set()
        self._producer.call_off()
        self._pool.shutdown(cancel_futures=True)
        self._producer.close()
        remove_partials(self._maker.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
