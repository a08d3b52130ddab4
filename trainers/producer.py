"""A process that makes windows while another one trains on them: started when needed, watched, replaced, ended.

It is a process and not a thread because half of sampling and packing is Python, which would take turns with the
trainer's. It is a program of its own: a fork would copy locks that the trainer's threads hold, and ``multiprocessing``
would import the caller's script a second time.
"""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, get_args

from graphsys.core.config import RunConfig
from graphsys.core.errors import MemoryBudgetError
from graphsys.core.metrics import StageReport
from graphsys.core.types import NodeIds
from graphsys.core.units import format_bytes
from graphsys.samplers.schedule import Schedule
from graphsys.trainers.plan import PackPlan

MakingTask = Literal["sample", "pack"]
TASKS: tuple[MakingTask, ...] = get_args(MakingTask)
PROGRAM = "graphsys.trainers.producer_process"
ATTEMPTS = 3  # at one request; a cause that passes, such as a burst of another job's memory, has passed by then
_KILLS = {signal.SIGKILL, signal.SIGTERM}


class CalledOffError(Exception):
    """A window is not made any more because nobody wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerJob:
    """What a producer must know of the windows of one split; see :class:`graphsys.trainers.windows.WindowSet`."""

    run: RunConfig
    store: Path
    schedule: Schedule
    plan: PackPlan
    split: str
    with_degree: bool
    overwrite: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRequest:
    """One window to make."""

    index: int
    initial_slots: NodeIds  # [S] global id in each cache slot before its first batch, -1 where empty


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """One task of making windows, to be done again and again for so long, at least once, with nothing kept."""

    task: MakingTask
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRounds:
    """When a task was done how often."""

    started: float  # on the clock of time.monotonic, which all processes share
    stopped: float
    seconds: float  # of that, those in which it was done
    units: int  # batches sampled, bytes packed

    @property
    def unit_s(self) -> float:
        """Seconds per unit."""
        return self.seconds / self.units


@dataclass(frozen=True, slots=True, kw_only=True)
class _Child:
    process: "subprocess.Popen[bytes]"
    channel: "Connection[object, object]"

    def bury(self) -> int:
        """Wait for its end; return its exit code, or minus the signal that ended it."""
        code = self.process.wait()
        self.channel.close()
        return code


class Producer:
    """Makes windows in a process of its own, one at a time, or rehearses that; it is started with the first request.

    The process ends with the thread that started it, even when that is killed, and holds ``claim`` until then. So the
    next run in the folder never meets it.

    Args:
        job: which windows, and how they are made.
        claim: descriptor of the run folder's claim, see :func:`graphsys.storage.files.claimed_folder`; None: unclaimed.
    """

    def __init__(self, job: ProducerJob, claim: int | None) -> None:
        self._job = job
        self._claim = claim
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._called_off = False
        self.deaths = 0  # of processes that were not called off

    def make(self, request: WindowRequest) -> dict[str, StageReport]:
        """Make a window, and return what its stages cost. For one thread, which must outlive the producer.

        Raises:
            CalledOffError: :meth:`call_off` was called.
            MemoryBudgetError: The process was killed again and again; or as below.
            StaleArtefactError, InputError, CorruptError, DiskError: Making the window failed.
            RuntimeError: The process crashed again and again.
        """
        reply = self._answer(request, f"it made window {request.index} of split '{self._job.split}'")
        assert isinstance(reply, dict)
        return reply

    def rehearse(self, request: TaskRequest) -> TaskRounds:
        """Do a task on drawn windows, and return how fast it went. For one thread, and raises, as :meth:`make`."""
        reply = self._answer(request, f"it rehearsed to {request.task}")
        assert isinstance(reply, TaskRounds)
        return reply

    def _answer(self, request: WindowRequest | TaskRequest, doing: str) -> object:
        code = 0
        for _ in range(ATTEMPTS):
            child = self._running()
            try:
                reply = _ask(child, request)
            except (EOFError, OSError):  # it is dead: no one else closes the channel
                code = self._forget(child)
                if self._called_off:
                    raise CalledOffError from None
                self.deaths += 1
                continue
            if isinstance(reply, Exception):
                self._forget(child)
                raise reply
            return reply
        raise self._obituary(doing, code)

    def _running(self) -> _Child:
        with self._lock:
            if self._called_off:
                raise CalledOffError
            if self._child is None:
                self._child = _start(self._job, self._claim)
            return self._child

    def _forget(self, child: _Child) -> int:
        code = child.bury()
        with self._lock:
            self._child = None
        return code

    def _obituary(self, doing: str, code: int) -> Exception:
        run = self._job.run
        what = f"the process that makes windows ended {ATTEMPTS} times while {doing}"
        if -code in _KILLS:
            return MemoryBudgetError(
                f"{what}, killed by {signal.Signals(-code).name}; the likely cause is that the machine or the job's "
                f"container ran out of memory: leave it more than memory ({format_bytes(run.memory)}) and the "
                f"interpreters take, or lower memory"
            )
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        return RuntimeError(f"{what}, {how}; what it wrote to standard error stands above")

    def call_off(self) -> None:
        """Kill the process; :meth:`make` raises from now on, also where it is waiting. From any thread."""
        with self._lock:
            self._called_off = True
            if self._child is not None:
                self._child.process.kill()

    def close(self) -> None:
        """Kill the process and wait for its end; no thread may be in :meth:`make`."""
        self.call_off()
        if self._child is not None:
            self._forget(self._child)


def _ask(child: _Child, request: WindowRequest | TaskRequest) -> object:
    with suppress(BrokenPipeError, ConnectionResetError):  # it may have ended by an error, which is still to be read
        child.channel.send(request)
    return child.channel.recv()


def _start(job: ProducerJob, claim: int | None) -> _Child:
    ours, theirs = Pipe()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "OPENBLAS_NUM_THREADS": "1",  # it computes no matrix product; the threads would be started all the same
    }
    with theirs:
        process = subprocess.Popen(
            # -P: what lies in the working directory is not imported.
            [sys.executable, "-P", "-m", PROGRAM, str(theirs.fileno()), str(os.getpid())],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # belongs to the command's own output
            pass_fds=[theirs.fileno(), *([] if claim is None else [claim])],
            process_group=0,  # Ctrl-C is for the trainer, which then ends this process
        )
    with suppress(BrokenPipeError, ConnectionResetError):
        ours.send(job)
    return _Child(process=process, channel=ours)
