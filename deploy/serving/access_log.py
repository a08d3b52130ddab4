"""One JSON line per request, written by a thread: a reader that stops reading never stops the server."""

import queue
import sys
import threading
from typing import Any, TextIO

import orjson

_MOST_LINES = 10_000  # that wait to be written; later ones are dropped and counted
_STOP_S = 2.0


class AccessLog:
    """Lines on their way to a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="graphsys-access-log", daemon=True)
        self._thread.start()

    def write(self, **fields: Any) -> None:
        """Write one line of plain values, soon."""
        if self._dropped:
            fields["dropped_before"] = self._dropped
        try:
            self._lines.put_nowait(fields)
            self._dropped = 0
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what waits, and end."""
        try:
            self._lines.put(None, timeout=_STOP_S)
        except queue.Full:
            return  # nobody reads
        self._thread.join(_STOP_S)

    def _write(self) -> None:
        stream = self._stream or sys.stderr
        while (fields := self._lines.get()) is not None:
            stream.write(orjson.dumps(fields).decode() + "\n")
            if self._lines.empty():
                stream.flush()
