"""What a producer does when a run is planned: the tasks of making windows, again and again, with nothing kept."""

import time
from functools import cached_property

from graphsys.core.progress import SILENT
from graphsys.core.types import Topology
from graphsys.storage.files import disk_errors, make_folder, remove_path
from graphsys.storage.store import Store
from graphsys.trainers.drawn_packing import DrawnPacking
from graphsys.trainers.producer import ProducerJob, TaskRequest, TaskRounds
from graphsys.trainers.window_maker import maker_of


class MakingRehearsal:
    """Samples windows of a job, and packs drawn ones of the store's first rows.

    Args:
        job: what a producer would make; windows and other files lie in ``run.out`` for a while.
        store: that of the job.
        topology: in-edges among the nodes of the task's type.
    """

    def __init__(self, job: ProducerJob, store: Store, topology: Topology) -> None:
        self._job = job
        self._store = store
        self._maker = maker_of(job, store, topology)
        self._index = 0

    def go_on(self, request: TaskRequest) -> TaskRounds:
        """Do a task until its time is over, at least once.

        Raises:
            MemoryBudgetError, InputError, CorruptError, DiskError: As
                :meth:`graphsys.trainers.window_maker.WindowMaker.make`.
        """
        if request.task == "sample":
            task, tidy = self._sample, self._tidy
        else:  # drawn here, before the clock starts
            task, tidy = self._packing.pack, self._packing.tidy
        started, seconds, units = time.monotonic(), 0.0, 0
        while not units or time.monotonic() - started < request.seconds:
            begun = time.monotonic()
            units += task()
            seconds += time.monotonic() - begun
            tidy()
        return TaskRounds(started=started, stopped=time.monotonic(), seconds=seconds, units=units)

    def _sample(self) -> int:
        """Sample a window; return its batches."""
        self._maker.sample(self._index, SILENT.start("", None, ""))
        return len(self._maker.schedule.window(self._index, self._maker.plan.window_batches))

    def _tidy(self) -> None:
        """Remove the window; the next one is another."""
        remove_path(self._maker.path(self._index, "sample"))
        self._index = (self._index + 1) % self._maker.num_windows

    @cached_property
    def _packing(self) -> DrawnPacking:
        job = self._job
        features = self._store.features(self._store.node_type(job.run.task.node_type).name)
        folder = job.run.out / "drawn"
        with disk_errors("write", folder):
            make_folder(folder)
        return DrawnPacking(
            folder, features, codec=job.plan.codec, with_rows=job.plan.mode == "packed",
            memory=job.plan.producer_bytes,
        )  # fmt: skip
