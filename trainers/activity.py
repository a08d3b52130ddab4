"""What a thread is busy with, second by second, so that a thread that waits for it can say what it waited for."""

import threading
import time
from collections.abc import Sequence


class Activity:
    """Adds up how long one thread was in each of several states; any thread may read the sums.

    Args:
        names: the states; the thread starts in the first one.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._seconds = dict.fromkeys(names, 0.0)
        self._state = names[0]
        self._since = time.perf_counter()
        self._lock = threading.Lock()

    def enter(self, name: str) -> None:
        """Say that the thread is in state ``name`` from now on."""
        with self._lock:
            self._settle()
            self._state = name

    def seconds(self) -> dict[str, float]:
        """Return the seconds in each state so far; they sum to the time since the start, at every moment."""
        with self._lock:
            self._settle()
            return dict(self._seconds)

    def _settle(self) -> None:
        now = time.perf_counter()
        self._seconds[self._state] += now - self._since
        self._since = now
