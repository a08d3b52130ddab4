"""The process: a socket, an event loop, the first table, and an orderly end."""

import asyncio
import gc
import math
import resource
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import uvicorn

from graphsys.core.errors import ConfigError, DiskError
from graphsys.core.progress import SILENT, Progress, Task
from graphsys.deploy.serving.app import make_app
from graphsys.deploy.serving.protocol import GuardedProtocol
from graphsys.deploy.serving.service import Service, make_service
from graphsys.deploy.serving.settings import ServeSettings

if TYPE_CHECKING:
    from graphsys.deploy.serving.flight import FlightService

_BACKLOG = 2048


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


def first_table(service: Service, tables: Sequence[Path]) -> str | None:
    """Make all tables known; return the version that is to be active first, None when there is none yet."""
    versions = [service.registry.add(path) for path in tables]
    if service.watch is not None:
        found = service.watch.find()
        versions = versions or found[-1:]
    return versions[0] if versions else None


async def _serve(
    server: "HttpServer",
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
            await asyncio.to_thread(registry.activate, first, _UntilStopped(server, progress))
        if server.service.watch is not None:
            server.service.watch.start()
        flight = None if server.flight is None else server.flight.url
        # What is loaded by now stays: the collector would pass over it again and again, for 0.1 s each.
        gc.collect()
        gc.freeze()
        on_ready(Ready(url=url, version=registry.active, flight=flight))
    except _Stopped:
        pass  # asked to end before it began
    except BaseException:
        server.stop()
        await serving
        raise
    await serving


class _Stopped(Exception):  # noqa: N818 - it is no error
    """The server was told to stop while it loaded its first table."""


class _UntilStopped:
    """Progress of a load that ends when the server is told to stop: large tables take minutes."""

    def __init__(self, server: "HttpServer", progress: Progress) -> None:
        self._server = server
        self._progress = progress

    def start(self, title: str, total: float | None, unit: str) -> Task:
        """Open a task whose every step asks whether to go on."""
        return _Step(self._server, self._progress.start(title, total, unit))

    def finish(self, task: Task) -> None:
        """Close a task."""
        assert isinstance(task, _Step)
        self._progress.finish(task.inner)

    def message(self, text: str) -> None:
        """Pass a line on."""
        self._progress.message(text)


class _Step:
    def __init__(self, server: "HttpServer", inner: Task) -> None:
        self._server = server
        self.inner = inner

    def advance(self, amount: float = 1) -> None:
        if self._server.should_exit:
            raise _Stopped
        self.inner.advance(amount)

    def note(self, text: str) -> None:
        self.inner.note(text)


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
                backlog=_BACKLOG,
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


def bind(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens on the server's address; who connects is answered once the server runs.

    Raises:
        ConfigError: The address is not this machine's, or the port is taken.
    """
    try:
        family, kind, _, _, where = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host {settings.host} is no address of this machine: {error.strerror}") from error
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {reason}; choose another --port, or 0 for any free one"
        ) from error
    return listener


def allow_open_files() -> None:
    """Let the process open as many files as the system lets it: every connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check_certificate(settings: ServeSettings) -> None:
    """Check that certificate and key can be read and belong together.

    Raises:
        ConfigError: They do not, or one of them is missing.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    if settings.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_cert, settings.tls_key, partial(_refuse_passphrase, settings.tls_key)
        )
    except ssl.SSLError as error:
        raise ConfigError(
            f"{settings.tls_cert} and {settings.tls_key} are no certificate and its key: {error}"
        ) from error
    except OSError as error:
        raise DiskError(f"cannot read {settings.tls_cert} or {settings.tls_key}: {error.strerror}") from error


def _refuse_passphrase(key: Path | None) -> str:
    # OpenSSL would ask for it on the terminal, and a server may have none.
    raise ConfigError(f"{key} is locked by a passphrase; write it without one: openssl pkey -in {key} -out NEW.pem")
