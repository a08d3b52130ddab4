"""The program that :mod:`graphsys.trainers.producer` runs: makes the windows it is asked for, or rehearses it.

An error is the last thing it says: it ends, and the trainer raises the error. It ends as soon as the trainer does.
"""

import ctypes
import os
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NoReturn

from graphsys.core.errors import GraphsysError
from graphsys.core.metrics import StageReport
from graphsys.core.progress import SILENT
from graphsys.storage.store import Store
from graphsys.trainers.making_rehearsal import MakingRehearsal
from graphsys.trainers.producer import ProducerJob, TaskRequest, TaskRounds, WindowRequest
from graphsys.trainers.window_maker import maker_of

if TYPE_CHECKING:  # the class takes no arguments when the program runs
    Channel = Connection[dict[str, StageReport] | TaskRounds | Exception, ProducerJob | WindowRequest | TaskRequest]

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>
_NICENESS = 5  # the trainer comes first; this process takes what it leaves, and all cores while it waits


def main() -> None:
    """Serve the channel and the trainer that the two arguments name: a file descriptor and a process id."""
    descriptor, trainer = map(int, sys.argv[1:])
    _end_with(trainer)
    os.nice(_NICENESS)
    channel: Channel = Connection(descriptor)
    with suppress(EOFError, OSError):  # the trainer is gone
        try:
            _serve(channel)
        except GraphsysError as error:
            channel.send(error)
        except MemoryError as error:
            channel.send(MemoryError(f"{error}"))  # numpy's own does not travel
        except EOFError:
            raise
        except Exception:  # noqa: BLE001 - a bug, to be shown whole where the trainer's own are shown
            channel.send(RuntimeError(f"the process that makes windows failed:\n{traceback.format_exc()}"))


def _end_with(trainer: int) -> None:
    """Have the kernel kill this process when the thread ends that started it.

    Source:
        prctl(2), PR_SET_PDEATHSIG.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != trainer:  # it ended before the call
        sys.exit()


def _serve(channel: "Channel") -> NoReturn:
    job = channel.recv()
    assert isinstance(job, ProducerJob)
    store = Store.open(job.store)
    edge_type = store.edge_type_within(store.node_type(job.run.task.node_type).name)
    topology = store.topology(edge_type, in_memory=job.plan.mode == "memory")
    maker = maker_of(job, store, topology)
    rehearsal: MakingRehearsal | None = None
    bar = SILENT.start("", None, "")
    while True:
        request = channel.recv()
        if isinstance(request, TaskRequest):
            rehearsal = rehearsal or MakingRehearsal(job, store, topology)
            channel.send(rehearsal.go_on(request))
            continue
        assert isinstance(request, WindowRequest)
        maker.make(request.index, request.initial_slots, bar, bar)
        channel.send(maker.take_reports())


if __name__ == "__main__":
    main()
