"""Reads the batches of consecutive steps before they are needed, by several threads, within a bound on their bytes."""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Protocol, Self

from graphsys.samplers.schedule import Schedule
from graphsys.storage.direct import Bytes, aligned_empty
from graphsys.storage.window import Window, WindowBatch, WindowEntry
from graphsys.trainers.activity import Activity
from graphsys.trainers.plan import PackPlan, hops_nbytes
from graphsys.trainers.rows import Assemble, RowSource, fetch_nbytes

WAITS = ("read", "assemble", "transfer", "producer")  # what a trainer can wait for


class Windows(Protocol):
    """The windows that a loader reads, in the order of their positions."""

    @property
    def schedule(self) -> Schedule:
        """Which seeds make up which batch."""

    @property
    def plan(self) -> PackPlan:
        """Mode, window size, cache size and memory."""

    def begin(self, first: int) -> None:
        """Start to go through the windows from ``first`` on."""

    def ready(self, index: int) -> bool:
        """Whether :meth:`open` would return the window at once."""

    def open(self, index: int, stop: threading.Event) -> Window | None:
        """Return a window, waiting until it is there; None when ``stop`` was set meanwhile.

        Raises:
            StaleArtefactError, MemoryBudgetError, InputError, CorruptError, DiskError: Making it failed.
        """

    def release(self, index: int) -> None:
        """Say that a window was consumed."""


@dataclass(slots=True, kw_only=True)
class LoaderStats:
    """What a loader did for the batches that it gave out; its fields may be added up over loaders."""

    batches: int = 0
    rows_hit: int = 0  # rows that came from memory
    rows_fetched: int = 0  # rows that came from the disk
    rows_loaded: int = 0  # rows read into the cache before their batches, at a start
    rows_traced: int = 0  # of the fetched rows, those of the nodes whose accesses were followed
    rows_bound: int = 0  # the fewest that any cache of the same size would have fetched of them
    useful_bytes: int = 0  # of the fetched rows without padding, and of all ids and edges
    read_bytes: int = 0  # asked of the disk for them
    wait_read_s: float = 0.0  # the consumer waited while a batch was read
    wait_assemble_s: float = 0.0  # ... while its rows were put together
    wait_transfer_s: float = 0.0  # ... while it went to the device
    wait_producer_s: float = 0.0  # ... while its window was made

    @property
    def wait_s(self) -> float:
        """Seconds that the consumer waited, whatever for."""
        return sum(self.waits().values())

    def waits(self) -> dict[str, float]:
        """Return the seconds waited for each of :data:`WAITS`."""
        return {name: getattr(self, f"wait_{name}_s") for name in WAITS}

    def add(self, part: Self) -> None:
        """Add every field of ``part``."""
        for item in fields(self):
            setattr(self, item.name, getattr(self, item.name) + getattr(part, item.name))

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One batch on its way to the trainer."""

    epoch: int
    window_index: int
    window: Window
    index: int  # within the window

    @property
    def entry(self) -> WindowEntry:
        """What the window's index says of the batch."""
        return self.window.entries[self.index]

    @property
    def is_last_of_window(self) -> bool:
        """Whether the next step reads from another window."""
        return self.index + 1 == len(self.window.entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What was read for a step; valid until it is handed back."""

    step: Step
    batch: WindowBatch
    assemble: Assemble  # makes the batch's x
    buffer: Bytes  # that residency and rows are views into
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    step: Step
    nbytes: int
    future: "Future[Read]"


class ReadAhead:
    """Gives out the reads of ``steps`` in order. Used by one thread; every read runs in another.

    Args:
        windows: where the batches are.
        rows: fetches the rows that a window does not hold.
        steps: batches of the training to read, counted over all epochs.
        stop: ends waiting for a window.
        activity: told when the calling thread waits for a read or for a window.
        threads: reads in flight.
    """

    def __init__(
        self, windows: Windows, rows: RowSource, steps: range, *,
        stop: threading.Event, activity: Activity, threads: int,
    ) -> None:  # fmt: skip
        self._windows = windows
        self._rows = rows
        self._steps = steps
        self._next = steps.start
        self._stop = stop
        self._activity = activity
        self._window: tuple[int, Window] | None = None  # the one that the next step reads from, if it is open
        self._pending: deque[_Pending] = deque()
        self._held = 0  # bytes of all reads that were not handed back
        self._budget = _budget(windows, rows)
        self._buffers: list[Bytes] = []
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="graphsys-read")

    def next(self) -> Read | None:
        """Return the next step's read; None after the last, or when ``stop`` was set.

        Raises:
            StaleArtefactError, MemoryBudgetError, InputError, CorruptError, DiskError: Making or reading it failed.
        """
        self._top_up()
        if not self._pending:
            return None
        self._activity.enter("read")
        return self._pending.popleft().future.result()

    def hand_back(self, read: Read) -> None:
        """Say that nothing refers to the read any more."""
        self._held -= read.nbytes
        self._buffers.append(read.buffer)

    def _top_up(self) -> None:
        while self._next < self._steps.stop:
            step = self._open_step()
            if step is None:
                return
            nbytes = step.entry.nbytes + fetch_nbytes(self._rows, step.entry)
            full = self._held + nbytes > self._budget or len(self._pending) >= self._windows.plan.read_ahead
            if self._pending and full:
                return
            buffer = self._take_buffer(step)
            self._held += nbytes
            future = self._pool.submit(self._read, step, buffer, nbytes)
            self._pending.append(_Pending(step=step, nbytes=nbytes, future=future))
            self._next += 1

    def _open_step(self) -> Step | None:
        """Return the next step; None while its window is being made and there are reads to go on with."""
        schedule = self._windows.schedule
        epoch, batch_id = divmod(self._next, schedule.batches_per_epoch)
        position = batch_id if schedule.samples == "frozen" else self._next
        window_index, index = divmod(position, self._windows.plan.window_batches)
        if self._window is None or self._window[0] != window_index:
            # A window that could not be made is opened, and its error raised, when the reads before it are given out.
            if self._pending and not self._windows.ready(window_index):
                return None
            self._activity.enter("producer")
            window = self._windows.open(window_index, self._stop)
            if window is None:
                return None
            self._window = window_index, window
        return Step(epoch=epoch, window_index=window_index, window=self._window[1], index=index)

    def _take_buffer(self, step: Step) -> Bytes:
        while self._buffers:
            buffer = self._buffers.pop()
            if buffer.nbytes >= step.entry.nbytes:
                return buffer
        return aligned_empty(step.window.largest_nbytes)

    def _read(self, step: Step, buffer: Bytes, nbytes: int) -> Read:
        batch = step.window.read(step.index, buffer)
        assemble = self._rows.fetch(batch)
        return Read(step=step, batch=_with_own_ids(batch), assemble=assemble, buffer=buffer, nbytes=nbytes)

    def close(self) -> None:
        """Wait for reads in flight."""
        self._pool.shutdown(cancel_futures=True)
        self._buffers.clear()


def _with_own_ids(batch: WindowBatch) -> WindowBatch:
    """Return the batch with ids, edges and labels out of the buffer, which is read into again."""
    sampled = batch.sampled
    own = replace(
        sampled,
        node=sampled.node.copy(),
        indptr=sampled.indptr.copy(),
        indices=sampled.indices.copy(),
        in_degree=None if sampled.in_degree is None else sampled.in_degree.copy(),
    )
    return replace(batch, sampled=own, y=None if batch.y is None else batch.y.copy())


def _budget(windows: Windows, rows: RowSource) -> int:
    plan = windows.plan
    return plan.read_ahead * (hops_nbytes(plan.max_nodes, plan.max_edges) + plan.max_nodes * rows.row_nbytes)
