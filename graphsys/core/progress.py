"""How a stage says how far it is. The command line draws it; the library knows only this seam."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of long work."""

    def advance(self, amount: float = 1) -> None:
        """Add ``amount`` units of finished work."""

    def note(self, text: str) -> None:
        """Show a short text beside the bar, such as the current loss."""


class Progress(Protocol):
    """Where stages report to."""

    def start(self, title: str, total: float | None, unit: str) -> Task:
        """Open a task of ``total`` units ("batches", "edges", "B"); None when the total is unknown."""

    def finish(self, task: Task) -> None:
        """Close a task, finished or not."""

    def message(self, text: str) -> None:
        """Print one line for people."""


class _SilentTask:
    def advance(self, amount: float = 1) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class SilentProgress:
    """Shows nothing; what library calls use unless told otherwise."""

    def start(self, title: str, total: float | None, unit: str) -> Task:  # noqa: ARG002 - the seam's signature
        """Return a task that shows nothing."""
        return _SilentTask()

    def finish(self, task: Task) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""


SILENT: Progress = SilentProgress()


@contextmanager
def task(progress: Progress, title: str, total: float | None, unit: str) -> Iterator[Task]:
    """Open a task and close it however the work ends."""
    opened = progress.start(title, total, unit)
    try:
        yield opened
    finally:
        progress.finish(opened)
