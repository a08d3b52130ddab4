"""What every request passes before and after its handler: counting and timing."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphsys.deploy.serving.service import Service


class Gate:
    """Middleware around the application; plain ASGI, so that bodies pass without copies."""

    def __init__(self, app: ASGIApp, *, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        telemetry, started, status = self._service.telemetry, time.perf_counter(), 500

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        telemetry.in_flight.inc()
        try:
            await self._app(scope, receive, counted)
        finally:
            telemetry.in_flight.dec()
            seconds = time.perf_counter() - started
            telemetry.observe_request(route=_route(scope), method=scope["method"], status=status, seconds=seconds)


def _route(scope: Scope) -> str:
    # Never the path itself: a client could make up any number of label values.
    path: str = getattr(scope.get("route"), "path", "other")
    return path
