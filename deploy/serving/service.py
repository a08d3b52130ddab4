"""What the ways to reach a server share: HTTP, Arrow Flight, Ray Serve."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from graphsys.core.errors import ConfigError
from graphsys.deploy.serving.access_log import AccessLog
from graphsys.deploy.serving.auth import Tokens, make_tokens
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.registry import TableRegistry
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.deploy.serving.telemetry import Telemetry
from graphsys.deploy.serving.watch import FolderWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything a request may need."""

    settings: ServeSettings
    registry: TableRegistry
    telemetry: Telemetry
    tokens: Tokens
    access_log: AccessLog | None  # None: not written
    watch: FolderWatch | None  # None: no folder is watched

    def close(self) -> None:
        """Close the active table, once nobody reads it, and write what waits to be written."""
        if self.watch is not None:
            self.watch.stop()
        self.registry.close()
        if self.access_log is not None:
            self.access_log.close()


def make_service(settings: ServeSettings) -> Service:
    """Return a service that knows no table yet.

    Raises:
        ConfigError: A token is wrong, or the address may not be listened on without one.
        DiskError: The token file cannot be read.
    """
    tokens = make_tokens(settings)
    registry = TableRegistry(settings)
    watch = None
    if settings.watch is not None:
        if not settings.watch.is_dir():
            raise ConfigError(f"--watch {settings.watch} is no folder; create it first")
        watch = FolderWatch(registry, settings.watch, every_s=settings.watch_s, activate=settings.activate_on_arrival)
    return Service(
        settings=settings,
        registry=registry,
        telemetry=Telemetry(registry),
        tokens=tokens,
        access_log=AccessLog() if settings.access_log else None,
        watch=watch,
    )


def first_table(service: Service, tables: Sequence[Path]) -> str | None:
    """Make all tables known; return the version that is to be active first, None when there is none yet."""
    versions = [service.registry.add(path) for path in tables]
    if service.watch is not None:
        found = service.watch.find()
        versions = versions or found[-1:]
    return versions[0] if versions else None


def service_of(request: Request) -> Service:
    """Return the service behind a request's application."""
    service: Service = request.app.state.service
    return service


def check_count(count: int, service: Service, what: str) -> None:
    """Refuse a request with more than ``max_ids`` of something.

    Raises:
        Problem: 422.
    """
    if count > service.settings.max_ids:
        raise Problem(
            422, f"the request has {count:,} {what}; at most {service.settings.max_ids:,} are answered at once"
        )
