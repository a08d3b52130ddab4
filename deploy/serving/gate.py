"""What every request passes before and after its handler: token, limits, its turn, its time, counting.

A request's body is read whole before the request takes a turn, and a reply is sent after it gave the turn back, so that
clients which send or read slowly keep nobody else from being answered.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from graphsys.core.errors import GraphsysError
from graphsys.core.units import format_bytes
from graphsys.deploy.serving.exchange import Exchange, SlowClientError, header
from graphsys.deploy.serving.operations import DirectRoute
from graphsys.deploy.serving.problems import Problem, as_problem
from graphsys.deploy.serving.service import Service

# The page, the descriptions and the probes hold no data, and whoever opens them cannot send a token.
OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/health/live", "/health/ready", "/favicon.ico"})
OPEN_PREFIX = "/page/"
_AT_ONCE = ("/health/", "/metrics")  # answered however many requests wait
_RETRY = {"Retry-After": "1"}
_LOG = logging.getLogger(__name__)


class Gate:
    """Middleware around the application; plain ASGI, so that bodies pass without copies.

    Args:
        app: Answers what is not ``direct``.
        direct: Routes by method and path, called from here: on its way through the layers of FastAPI a look-up would
            spend a third of its time.
    """

    def __init__(self, app: ASGIApp, *, service: Service, direct: Mapping[tuple[str, str], DirectRoute]) -> None:
        self._app = app
        self._service = service
        self._direct = direct
        self._limits = service.settings
        self._turns = asyncio.Semaphore(service.settings.max_concurrency)
        self._waiting = 0
        self._held_bytes = 0  # request bodies and replies that are not sent yet

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on if nothing stands against it, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        telemetry, started = self._service.telemetry, time.perf_counter()
        exchange = Exchange(scope, receive, send, self._hold, send_time_s=self._limits.send_time_s)
        telemetry.in_flight.inc()
        try:
            await self._answer(scope, exchange)
        finally:
            telemetry.in_flight.dec()
            self._held_bytes -= exchange.held_bytes
            self._count(scope, exchange, time.perf_counter() - started)

    def _hold(self, num_bytes: int) -> None:
        self._held_bytes += num_bytes

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        try:
            await self._pass(scope, exchange)
        except Problem as problem:
            await exchange.refuse(problem)
        except GraphsysError as error:
            await exchange.refuse(as_problem(error))
        except SlowClientError:
            exchange.abort()
        except Exception as error:  # noqa: BLE001 - the outermost boundary of a request; what arrives here is a bug
            _LOG.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            await exchange.refuse(Problem(500, "this is a bug in graphsys; the server's log says more"))

    async def _pass(self, scope: Scope, exchange: Exchange) -> None:
        path: str = scope["path"]
        if path not in OPEN_PATHS and not path.startswith(OPEN_PREFIX):
            self._service.tokens.check(header(scope, b"authorization"))
        if path.startswith(_AT_ONCE):
            await self._work(scope, exchange)
            return
        if self._held_bytes > self._limits.max_held_bytes:
            raise Problem(
                429,
                f"bodies under way take {format_bytes(self._held_bytes)}; ask again in a moment, or for less at once",
                headers=_RETRY,
            )
        await exchange.read_body(self._limits.max_body_bytes, self._limits.body_time_s)
        limit_s = self._limits.activate_time_s if path.endswith("/activate") else self._limits.request_time_s
        try:
            async with asyncio.timeout(limit_s) as clock, self._turn(exchange):
                exchange.on_start = lambda: clock.reschedule(None)
                await self._work(scope, exchange)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise Problem(
                503, f"the work took longer than {limit_s:g} s; ask for less at once", headers=_RETRY
            ) from error

    async def _work(self, scope: Scope, exchange: Exchange) -> None:
        route = self._direct.get((scope["method"], scope["path"]))
        if route is None:
            await self._app(scope, exchange.receive, exchange.send)
            return
        scope["route"] = route
        response = await route.endpoint(Request(scope, exchange.receive))
        await response(scope, exchange.receive, exchange.send)

    @asynccontextmanager
    async def _turn(self, exchange: Exchange) -> AsyncIterator[None]:
        """Wait for one of ``max_concurrency`` turns; it is given back when the reply begins."""
        if self._turns.locked() and self._waiting >= self._limits.max_waiting:
            raise Problem(429, f"{self._waiting:,} requests wait already; ask again in a moment", headers=_RETRY)
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        exchange.turn = self._turns
        try:
            yield
        finally:
            exchange.give_turn_back()

    def _count(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        # Never the path itself: a client could make up any number of label values.
        route: str = getattr(scope.get("route"), "path", "other")
        method: str = scope["method"]
        self._service.telemetry.observe_request(route=route, method=method, status=exchange.status, seconds=seconds)
        log = self._service.access_log
        if log is not None:
            log.write(
                time=datetime.now(UTC).isoformat(timespec="milliseconds"),
                client=(scope.get("client") or ("",))[0],
                method=method,
                path=scope["path"],
                status=exchange.status,
                ms=round(seconds * 1e3, 3),
                bytes_in=exchange.bytes_in,
                bytes_out=exchange.bytes_out,
            )
