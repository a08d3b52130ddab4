"""Progress of a worker, shown by the program that started it: events go through a file in the run's folder.

A file works wherever checkpoints do, and needs nothing of the cluster. A worker that replaces a killed one starts anew.
"""

import json
import threading
import time
from pathlib import Path
from typing import Any

from graphsys.core.progress import Progress, Task
from graphsys.storage.files import disk_errors, make_folder

_EVERY_S = 0.2  # between two events about the same task


class FileProgress:
    """Writes what it is told as one JSON line per event. For one process at a time."""

    def __init__(self, path: Path) -> None:
        """Append to ``path``; its folder is made when missing.

        Raises:
            DiskError: The system refused.
        """
        make_folder(path.parent)
        with disk_errors("write", path):
            self._file = path.open("a", encoding="utf-8")
        self._lock = threading.Lock()
        self._tasks = 0
        self.write({"event": "open"})

    def write(self, event: dict[str, Any]) -> None:
        """Append one event."""
        with self._lock:
            self._file.write(json.dumps(event) + "\n")
            self._file.flush()

    def start(self, title: str, total: float | None, unit: str) -> Task:
        """Open a task of ``total`` units; None when the total is unknown."""
        with self._lock:
            self._tasks += 1
            number = self._tasks
        self.write({"event": "start", "task": number, "title": title, "total": total, "unit": unit})
        return _FileTask(self, number)

    def finish(self, task: Task) -> None:
        """Close a task, finished or not."""
        assert isinstance(task, _FileTask)
        task.flush()
        self.write({"event": "finish", "task": task.number})

    def message(self, text: str) -> None:
        """Pass on one line for people."""
        self.write({"event": "message", "text": text})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _FileTask:
    def __init__(self, progress: FileProgress, number: int) -> None:
        self.number = number
        self._progress = progress
        self._lock = threading.Lock()
        self._waiting = 0.0
        self._written = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        with self._lock:
            self._waiting += amount
            due = time.monotonic() - self._written >= _EVERY_S
        if due:
            self.flush()

    def note(self, text: str) -> None:
        self._progress.write({"event": "note", "task": self.number, "text": text})

    def flush(self) -> None:
        with self._lock:
            amount, self._waiting, self._written = self._waiting, 0.0, time.monotonic()
        if amount:
            self._progress.write({"event": "advance", "task": self.number, "amount": amount})


class Replay:
    """Shows the events of a file that others write; every call of :meth:`poll` shows the new ones.

    Args:
        path: what :class:`FileProgress` writes; it need not exist yet.
        progress: where it is shown.
    """

    def __init__(self, path: Path, progress: Progress) -> None:
        self._path = path
        self._progress = progress
        self._offset = 0
        self._tasks: dict[int, Task] = {}
        self.opened = 0  # times that a worker began to write

    def poll(self) -> None:
        """Show what was written since the last call."""
        if not self._path.is_file():
            return
        with disk_errors("read", self._path), self._path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # the last line may be half written
        self._offset += len(whole)
        for line in whole.splitlines():
            self._show(json.loads(line))

    def _show(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "open":
                self._restart()
            case "start":
                self._tasks[event["task"]] = self._progress.start(event["title"], event["total"], event["unit"])
            case "advance":
                self._tasks[event["task"]].advance(event["amount"])
            case "note":
                self._tasks[event["task"]].note(event["text"])
                self._progress.message(event["text"])  # also to a log, where a note would be seen now and then only
            case "finish":
                self._progress.finish(self._tasks.pop(event["task"]))
            case "message":
                self._progress.message(event["text"])

    def _restart(self) -> None:
        self.close()
        self.opened += 1
        if self.opened > 1:
            self._progress.message(f"a worker was lost; start {self.opened}, from the newest checkpoint")

    def close(self) -> None:
        """Close the tasks that are open."""
        for task in self._tasks.values():
            self._progress.finish(task)
        self._tasks.clear()
