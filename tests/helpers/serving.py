"""Tables of visible vectors, and servers that answer from them in a thread of this process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from helpers.tables import make_table

from graphsys.deploy.serving.http_server import HttpServer
from graphsys.deploy.serving.listening import bind
from graphsys.deploy.serving.service import Service, make_service
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.storage.embeddings import EmbeddingTable

WAIT_S = 20.0


def constant_table(folder: Path, value: float, *, rows: int = 50, dim: int = 8) -> EmbeddingTable:
    """Write a table whose every number is ``value``, so that an answer shows which table it came from."""
    folder.mkdir(exist_ok=True)
    return make_table(folder, np.full((rows, dim), value, np.float32))


def counting_table(folder: Path, *, rows: int = 50, dim: int = 4, ids: list[str] | None = None) -> EmbeddingTable:
    """Write a table whose row i holds i."""
    folder.mkdir(exist_ok=True)
    return make_table(folder, np.repeat(np.arange(rows, dtype=np.float32)[:, None], dim, axis=1), ids=ids)


def service_with(*tables: EmbeddingTable, **settings: Any) -> Service:
    """Return a service that knows ``tables``; the first is active."""
    service = make_service(ServeSettings(**{"port": 0, **settings}))
    versions = [service.registry.add(table.path) for table in tables]
    if versions:
        service.registry.activate(versions[0])
    return service


@contextmanager
def running(service: Service) -> Iterator[str]:
    """Yield the URL of a server that runs in a thread with an event loop of its own."""
    listener = bind(service.settings)
    url = service.settings.url(listener.getsockname()[1])
    server = HttpServer(service)
    done: list[BaseException] = []

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(server.serve(sockets=[listener]))
        except BaseException as error:  # noqa: BLE001 - shown by the thread that waits
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield url
    finally:
        server.stop()
        thread.join(WAIT_S)
        listener.close()
        service.close()
    assert not thread.is_alive(), "the server did not stop"
    assert done == []


@contextmanager
def client_of(service: Service, **options: Any) -> Iterator[httpx.Client]:
    """Yield an HTTP client of a running server."""
    with running(service) as url, httpx.Client(base_url=url, timeout=WAIT_S, **options) as client:
        yield client
