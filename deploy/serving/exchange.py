"""One request and its reply on their way through the gate: bodies within their limits of size and time."""

import asyncio
from collections.abc import Callable

from starlette.types import Message, Receive, Scope, Send

from graphsys.core.units import format_bytes
from graphsys.deploy.serving.problems import Problem

ABORT = "graphsys.abort"  # of an ASGI scope: ends the connection at once, unsent bytes lost
PIECE_BYTES = 1 << 20  # of a reply that are handed over at once
_SMALL_BYTES = 64 << 10  # what a connection buffers before it asks to wait
_BODILESS = frozenset({"GET", "HEAD"})


class SlowClientError(Exception):
    """A client that does not read its reply."""


class Exchange:
    """A request, as the application receives it, and a reply, as the client is sent it.

    Args:
        hold: Is told of bytes that are held in memory for this exchange.
        send_time_s: Longest that a client may take for ``PIECE_BYTES`` of a reply.
    """

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, hold: Callable[[int], None], *, send_time_s: float
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._hold_more = hold
        self._send_time_s = send_time_s
        self._body: bytes | None = None
        self._started = False
        self.status = 500
        self.bytes_in = 0
        self.bytes_out = 0
        self.held_bytes = 0
        self.on_start: Callable[[], None] = lambda: None
        self.turn: asyncio.Semaphore | None = None

    async def read_body(self, most_bytes: int, time_s: float) -> None:
        """Read the whole body.

        Raises:
            Problem: 413, it is larger than ``most_bytes``; 408, it took longer than ``time_s``.
        """
        declared = header(self._scope, b"content-length")
        if declared is None and (
            self._scope["method"] in _BODILESS or header(self._scope, b"transfer-encoding") is None
        ):
            return
        if declared is not None and int(declared) > most_bytes:
            raise _too_large(most_bytes)
        try:
            async with asyncio.timeout(time_s):
                self._body = await self._whole_body(most_bytes)
        except TimeoutError as error:
            detail = f"the body did not arrive within {time_s:g} s; {self.bytes_in:,} bytes of it did"
            raise Problem(408, detail, headers={"Connection": "close"}) from error

    async def _whole_body(self, most_bytes: int) -> bytes:
        parts: list[bytes] = []
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise SlowClientError
            part: bytes = message.get("body", b"")
            self.bytes_in += len(part)
            self._hold(len(part))
            if self.bytes_in > most_bytes:
                raise _too_large(most_bytes)
            parts.append(part)
            more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _hold(self, num_bytes: int) -> None:
        self.held_bytes += num_bytes
        self._hold_more(num_bytes)

    async def receive(self) -> Message:
        """Return the body, whole, and after that what the server says, such as that the client is gone."""
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Send a part of the reply, in pieces, each of which the client must take in time.

        Raises:
            SlowClientError: It did not.
        """
        if message["type"] == "http.response.start":
            self._started, self.status = True, message["status"]
            self.on_start()
            self.give_turn_back()
            await self._send(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        self.bytes_out += len(body)
        if len(body) <= _SMALL_BYTES:
            await self._timed({"type": "http.response.body", "body": body, "more_body": more})
            return
        self._hold(len(body))
        for start in range(0, len(body), PIECE_BYTES):
            piece = body if len(body) <= PIECE_BYTES else memoryview(body)[start : start + PIECE_BYTES]
            await self._timed({"type": "http.response.body", "body": piece, "more_body": True})
        # An empty last part waits until the connection has taken the one before.
        await self._timed({"type": "http.response.body", "body": b"", "more_body": more})

    async def _timed(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._send_time_s):
                await self._send(message)
        except TimeoutError as error:
            raise SlowClientError from error

    def give_turn_back(self) -> None:
        """Let the next request work; nothing happens when that was done before."""
        if self.turn is not None:
            self.turn.release()
            self.turn = None

    async def refuse(self, problem: Problem) -> None:
        """Answer with a problem; when a reply has begun, end the connection, lest it pass as whole."""
        if self._started:
            self.abort()
            return
        self.on_start = lambda: None
        response = problem.response()
        try:
            await response(self._scope, self.receive, self.send)
        except SlowClientError:
            self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        abort: Callable[[], None] | None = self._scope.get(ABORT)
        if abort is not None:
            abort()


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of that lower-case name; None when there is none."""
    return next((value for key, value in scope["headers"] if key == name), None)


def _too_large(most_bytes: int) -> Problem:
    return Problem(413, f"the body is larger than {format_bytes(most_bytes)}; send fewer ids at once, or use Arrow")
