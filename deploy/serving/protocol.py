"""HTTP/1.1 as uvicorn speaks it, with what it lacks against clients that hold connections.

uvicorn bounds neither the time nor the size of a request's head, nor how long a client may leave its reply unread.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from graphsys.deploy.serving.exchange import ABORT
from graphsys.deploy.serving.problems import MEDIA_TYPE, Problem
from graphsys.deploy.serving.settings import ServeSettings

LINGER_S = 5.0  # how long the rest of a refused body is read and thrown away


class GuardedProtocol(HttpToolsProtocol):
    """One connection.

    Args:
        limits: The server's settings.
        options: What uvicorn passes.
    """

    def __init__(self, *, limits: ServeSettings, **options: Any) -> None:
        super().__init__(**options)
        self._limits = limits
        self._in_head = True
        self._head_bytes = 0
        self._timer: asyncio.TimerHandle | None = None  # of a head that is awaited, or of a connection to be ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, unless there are too many."""
        super().connection_made(cast(asyncio.Transport, transport))
        if len(self.connections) > self._limits.max_connections:
            self._end(Problem(503, f"{self._limits.max_connections:,} connections are open; ask again in a moment"))
            return
        self._set_timer(self._limits.body_time_s, self._head_is_late)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; a head must be whole in time, and not too large."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._head_bytes > self._limits.max_header_bytes:
            self._end(Problem(431, f"the head of the request is larger than {self._limits.max_header_bytes:,} bytes"))
        elif self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._set_timer(self._limits.body_time_s, self._head_is_late)

    def on_headers_complete(self) -> None:
        """Start the request."""
        self._in_head, self._head_bytes = False, 0
        self._cancel_timer()
        cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Await the next head."""
        self._in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Await the next request; what is left of a refused one is thrown away, but not for ever."""
        unread = self.cycle.more_body and not self._in_head
        super().on_response_complete()
        if unread:
            self._set_timer(LINGER_S, self.transport.abort)

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection, also one whose client has not read its last reply."""
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP."""
        self._end(Problem(400, f"{msg} Send HTTP/1.1."))

    def _head_is_late(self) -> None:
        self._end(Problem(408, f"the head of the request did not arrive within {self._limits.body_time_s:g} s"))

    def _end(self, problem: Problem) -> None:
        body = problem.body()
        head = (
            f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self._cancel_timer()
        self.transport.write(head.encode() + body)
        self.transport.close()
        self._timer = self.loop.call_later(LINGER_S, self.transport.abort)

    def _set_timer(self, seconds: float, then: Callable[[], None]) -> None:
        self._cancel_timer()
        self._timer = self.loop.call_later(seconds, then)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
