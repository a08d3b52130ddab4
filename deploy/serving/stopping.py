"""A load that ends when its server is told to stop."""

from collections.abc import Callable

from graphsys.core.progress import Progress, Task


class Stopped(Exception):  # noqa: N818 - it is no error
    """The server was told to stop while it loaded its first table."""


class UntilStopped:
    """Progress of a load that ends when the server is told to stop: large tables take minutes.

    Args:
        stopped: Whether it was told; asked at every step, in the thread that loads.
    """

    def __init__(self, stopped: Callable[[], bool], progress: Progress) -> None:
        self._stopped = stopped
        self._progress = progress

    def start(self, title: str, total: float | None, unit: str) -> Task:
        """Open a task whose every step asks whether to go on."""
        return _Step(self._stopped, self._progress.start(title, total, unit))

    def finish(self, task: Task) -> None:
        """Close a task."""
        assert isinstance(task, _Step)
        self._progress.finish(task.inner)

    def message(self, text: str) -> None:
        """Pass a line on."""
        self._progress.message(text)


class _Step:
    def __init__(self, stopped: Callable[[], bool], inner: Task) -> None:
        self._stopped = stopped
        self.inner = inner

    def advance(self, amount: float = 1) -> None:
        if self._stopped():
            raise Stopped
        self.inner.advance(amount)

    def note(self, text: str) -> None:
        self.inner.note(text)
