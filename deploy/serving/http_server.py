"""uvicorn with our application and protocol, and how it ends."""

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from graphsys.deploy.serving.app import make_app
from graphsys.deploy.serving.listening import BACKLOG
from graphsys.deploy.serving.protocol import GuardedProtocol
from graphsys.deploy.serving.service import Service

if TYPE_CHECKING:
    from graphsys.deploy.serving.flight import FlightService


class HttpServer(uvicorn.Server):
    """uvicorn with our application; it leaves signals to whoever runs it.

    Args:
        flight: Ends with it.
    """

    def __init__(self, service: Service, *, flight: "FlightService | None" = None) -> None:
        settings = service.settings
        super().__init__(
            uvicorn.Config(
                make_app(service),
                loop="uvloop",
                http=cast(Any, partial(GuardedProtocol, limits=settings)),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=math.ceil(settings.idle_time_s),
                timeout_graceful_shutdown=math.ceil(settings.drain_s),
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
            )
        )
        self.service = service
        self.flight = flight

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signal handlers alone: uvicorn would end the process by the signal once it has drained."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests under way for ``drain_s``, then end every connection that is left."""
        flight = None if self.flight is None else asyncio.create_task(asyncio.to_thread(self.flight.stop))
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if flight is not None:
            await flight

    def stop(self) -> None:
        """Take no new connections, finish the requests under way, then end; safe from the loop's own thread."""
        self.should_exit = True
