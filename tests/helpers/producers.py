"""The processes that make windows, seen from outside, and ways to end them."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from helpers.loading import Scene

from graphsys.trainers.producer import PROGRAM, ProducerJob

WAIT_S = 60.0


def job_of(chosen: Scene) -> ProducerJob:
    """Return what the producer of a scene's windows is told."""
    return ProducerJob(
        run=chosen.run, store=chosen.store.path, schedule=chosen.schedule, plan=chosen.plan, split=chosen.split,
        with_degree=True, overwrite=False,
    )  # fmt: skip


def producers(pid: int | None = None) -> list[psutil.Process]:
    """Return the living producers that process ``pid``, this one when None, has started."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            if PROGRAM in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


def one_producer(pid: int | None = None) -> psutil.Process:
    """Wait until there is a producer, and return it."""
    deadline = time.monotonic() + WAIT_S
    while not (found := producers(pid)):
        assert time.monotonic() < deadline, "no producer was started"
        time.sleep(0.002)
    return found[0]


@contextmanager
def striking(number: signal.Signals, *, folder: Path, times: int) -> Iterator[list[int]]:
    """Send ``number`` to ``times`` producers, one after the other, as soon as each has begun to write in ``folder``.

    Yields:
        The process ids that were struck, so far.
    """
    struck: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while len(struck) < times and not stop.wait(0.0005):
            for child in producers():
                if child.pid not in struck and any(folder.glob(".window-*.partial")):
                    with suppress(psutil.NoSuchProcess):
                        child.send_signal(number)
                        struck.append(child.pid)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield struck
    finally:
        stop.set()
        thread.join()
