"""Windows in, mini-batches out: read ahead by several threads, assembled in order by one.

A batch's blob is read with one direct read; then its rows come together from the cache and from what was read. Both
happen ahead of the consumer, within bounds on count and bytes. The order of the batches and their values depend on
neither the threads nor the mode.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from graphsys.core.errors import ConfigError
from graphsys.core.types import LoaderCursor
from graphsys.storage.features import FeatureReader
from graphsys.storage.flat import FlatArray
from graphsys.trainers.activity import Activity
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.channel import Channel
from graphsys.trainers.read_ahead import WAITS, LoaderStats, Read, ReadAhead, Windows
from graphsys.trainers.rows import Loaded, fetched_rows, open_rows
from graphsys.trainers.rows_bound import RowsBound

_FIRST = LoaderCursor(epoch=0, next_batch_id=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A batch for the consumer, and what it took."""

    batch: MiniBatch
    stats: LoaderStats


class Loader:
    """Iterates over the mini-batches of a schedule from a cursor to the end; may be iterated once.

    At any moment one batch is with the consumer and one is assembled or being assembled.

    Args:
        windows: where the batches' ids and edges are; stays the caller's.
        features: [N, D] float32, from which the cache is filled again after a restart.
        reader: what :func:`graphsys.trainers.rows.open_reader` opened; stays the caller's.
        cursor: the first batch to give out.
        device: where the batches' tensors go.
        threads: reads in flight, and threads that share one gather; never changes the result.

    Raises:
        ConfigError: The cursor is outside the schedule.
    """

    def __init__(
        self, windows: Windows, features: FlatArray, reader: FeatureReader, *,
        cursor: LoaderCursor = _FIRST, device: torch.device | str = "cpu", threads: int = 2,
    ) -> None:  # fmt: skip
        self._windows = windows
        self._reader = reader
        self._device = torch.device(device)
        self._steps = _steps_from(windows, cursor)
        self._given = self._steps.start  # steps before this one are with the consumer
        self._stats = LoaderStats()
        self._from_store = reader.count.read_bytes
        self._activity = Activity(("assemble", *(name for name in WAITS if name != "assemble")))
        self._stop = threading.Event()
        self._channel: Channel[_Ready] = Channel()
        self._dim = features.shape[1]
        self._rows = open_rows(windows.plan, features, reader, threads=threads)
        self._ahead = ReadAhead(
            windows, self._rows, self._steps, stop=self._stop, activity=self._activity, threads=threads
        )
        self._bound = _rows_bound(windows)
        self._assembler = ThreadPoolExecutor(1, thread_name_prefix="graphsys-assemble")
        self._outcome: Future[None] | None = None

    def __len__(self) -> int:
        """Return the number of batches from the cursor to the end."""
        return len(self._steps)

    @property
    def cursor(self) -> LoaderCursor:
        """The next batch that was not given out yet."""
        schedule = self._windows.schedule
        epoch, index = divmod(self._given, max(schedule.batches_per_epoch, 1))
        rank, world_size = schedule.rank, schedule.world_size
        return LoaderCursor(epoch=epoch, next_batch_id=index * world_size + rank, rank=rank, world_size=world_size)

    @property
    def stats(self) -> LoaderStats:
        """What the loader did for the batches given out so far; reads of the next ones from the store count too."""
        from_store = self._reader.count.read_bytes
        self._stats.read_bytes += from_store - self._from_store
        self._from_store = from_store
        return self._stats

    def __iter__(self) -> Iterator[MiniBatch]:
        """Yield the batches in order; an error of any thread is raised where its batch would have come.

        Raises:
            StaleArtefactError, MemoryBudgetError, InputError, CorruptError, DiskError: Making or reading a batch
                failed.
        """
        if self._outcome is not None:
            raise ValueError("a loader is iterated once; make another one")
        if not self._steps:
            return
        self._windows.begin(self._first_window())
        self._outcome = self._assembler.submit(self._assemble_all)
        try:
            while (batch := self._wait()) is not None:
                self._given += 1
                yield batch
                del batch  # its buffers are the next batch's, unless the consumer keeps it
            self._outcome.result()
        finally:
            self.close()

    def _first_window(self) -> int:
        schedule = self._windows.schedule
        position = self._steps.start % max(schedule.num_batches, 1)
        return position // self._windows.plan.window_batches

    def _wait(self) -> MiniBatch | None:
        before = self._activity.seconds()
        ready = self._channel.get()
        for name, seconds in self._activity.seconds().items():
            wait = f"wait_{name}_s"
            setattr(self._stats, wait, getattr(self._stats, wait) + seconds - before[name])
        if ready is None:
            return None
        self._stats.add(ready.stats)
        return ready.batch

    def _assemble_all(self) -> None:
        first = True
        try:
            while (read := self._ahead.next()) is not None and self._channel.wait_for_room():
                step, loaded = read.step, Loaded()
                if first or step.index == 0:
                    loaded = self._rows.enter(step.window, step.index)
                    first = False
                stats = self._count(read, loaded)
                batch = self._assemble(read)
                self._ahead.hand_back(read)
                if step.is_last_of_window:
                    self._windows.release(step.window_index)
                self._channel.put(_Ready(batch=batch, stats=stats))
        finally:
            self._channel.finish()

    def _assemble(self, read: Read) -> MiniBatch:
        self._activity.enter("assemble")
        x = read.assemble()
        batch = MiniBatch.assemble(read.batch.sampled, x, read.batch.y, epoch=read.step.epoch)
        self._activity.enter("transfer")
        batch = batch.to(self._device)
        self._activity.enter("assemble")
        return batch

    def _count(self, read: Read, loaded: Loaded) -> LoaderStats:
        sampled, entry = read.batch.sampled, read.step.entry
        fetched = fetched_rows(self._rows, entry)
        ids = sampled.node.nbytes + sampled.indptr.nbytes + sampled.indices.nbytes
        traced, bound = self._bound.see(read.batch, self._rows.held)
        return LoaderStats(
            batches=1,
            rows_hit=entry.num_nodes - fetched,
            rows_fetched=fetched,
            rows_loaded=loaded.rows,
            rows_traced=traced,
            rows_bound=bound,
            useful_bytes=(fetched + loaded.rows) * self._dim * 4 + ids,
            read_bytes=entry.nbytes + loaded.read_bytes,
        )

    def close(self) -> None:
        """Stop all threads of the loader and wait for them; the windows go on."""
        self._stop.set()
        self._channel.close()
        self._assembler.shutdown()
        self._ahead.close()
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _steps_from(windows: Windows, cursor: LoaderCursor) -> range:
    """Return the steps from ``cursor`` to the end of the last epoch, counted over all epochs."""
    schedule = windows.schedule
    total = schedule.epochs * schedule.batches_per_epoch
    first = cursor.epoch * schedule.batches_per_epoch + schedule.index(cursor.next_batch_id)
    known = cursor.epoch >= 0 and 0 <= cursor.next_batch_id <= schedule.epoch_batches and first <= total
    if not known or (cursor.rank, cursor.world_size) != (schedule.rank, schedule.world_size):
        raise ConfigError(
            f"the cursor {cursor} is outside a schedule of {schedule.epochs} epochs of {schedule.epoch_batches} "
            f"batches for worker {schedule.rank} of {schedule.world_size}; the checkpoint belongs to another run"
        )
    return range(first, total)


def _rows_bound(windows: Windows) -> RowsBound:
    schedule = windows.schedule
    last = (schedule.batches_per_epoch - 1) * schedule.world_size + schedule.rank
    return RowsBound(windows.plan, schedule.batches_per_epoch, last_batch_id=last)
