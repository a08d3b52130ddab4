"""Work that is done again and again beside the requests, such as a look into a folder."""

import threading
from collections.abc import Callable

_STOP_S = 5.0  # longest wait for a look under way


class Looking:
    """Calls ``look`` every ``every_s`` seconds, in a thread of its own.

    Args:
        look: Must not raise.
        name: Of the thread.
    """

    def __init__(self, look: Callable[[], None], *, every_s: float, name: str) -> None:
        self._look = look
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Look again and again from now on, the first time after ``every_s``."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look()
