"""Scalars for TensorBoard, written by the thread that has them, so that a full disk is met there and not in another."""

import itertools
import os
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

_files = itertools.count()  # a process may open several within a second


class Board:
    """Appends to an event file of its own.

    Args:
        folder: Made when missing.
        purge_step: TensorBoard hides what was logged from this step on.
    """

    def __init__(self, folder: Path, *, purge_step: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{next(_files)}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(file_version="brain.Event:2", step=purge_step))
        self._write(Event(session_log=SessionLog(status=SessionLog.START), step=purge_step))

    def add_scalar(self, tag: str, number: float, step: int) -> None:
        """Append one number."""
        self._write(Event(summary=Summary(value=[Summary.Value(tag=tag, simple_value=number)]), step=step))

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()
