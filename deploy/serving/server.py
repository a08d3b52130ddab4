"""The process: an event loop, the first table, and an orderly end."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphsys.core.progress import SILENT, Progress
from graphsys.deploy.serving.http_server import HttpServer
from graphsys.deploy.serving.listening import allow_open_files, bind, check_certificate
from graphsys.deploy.serving.service import Service, first_table, make_service
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.deploy.serving.stopping import Stopped, UntilStopped

if TYPE_CHECKING:
    from graphsys.deploy.serving.flight import FlightService


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Where a server answers, told once its first table is active."""

    url: str
    version: str | None
    flight: str | None  # where Arrow Flight answers; None: it is not served


def serve(
    tables: Sequence[Path],
    settings: ServeSettings,
    *,
    progress: Progress = SILENT,
    on_ready: Callable[[Ready], None] = lambda _: None,
) -> None:
    """Serve ``tables`` until SIGTERM or Ctrl-C; the first one is active at the start, or the newest one watched.

    Raises:
        ConfigError: An address, a certificate or a token does not allow it.
        DiskError: A table cannot be read.
        ArtefactError: A table is damaged, or none.
    """
    check_certificate(settings)
    service = make_service(settings)
    allow_open_files()
    with bind(settings) as listener:
        first = first_table(service, tables)
        server = HttpServer(service, flight=_flight_service(service))
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_serve(server, listener, first, progress, on_ready))
    service.close()


def _flight_service(service: Service) -> "FlightService | None":
    if service.settings.flight_port is None:
        return None
    from graphsys.deploy.serving.flight import FlightService

    return FlightService(service)


async def _serve(
    server: HttpServer,
    listener: socket.socket,
    first: str | None,
    progress: Progress,
    on_ready: Callable[[Ready], None],
) -> None:
    loop, registry = asyncio.get_running_loop(), server.service.registry
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    url = server.service.settings.url(listener.getsockname()[1])
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        if first is not None:
            await asyncio.to_thread(registry.activate, first, UntilStopped(lambda: server.should_exit, progress))
        if server.service.watch is not None:
            server.service.watch.start()
        flight = None if server.flight is None else server.flight.url
        # What is loaded by now stays: the collector would pass over it again and again, for 0.1 s each.
        gc.collect()
        gc.freeze()
        on_ready(Ready(url=url, version=registry.active, flight=flight))
    except Stopped:
        pass  # asked to end before it began
    except BaseException:
        server.stop()
        await serving
        raise
    await serving
