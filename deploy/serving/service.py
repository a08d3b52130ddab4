"""What the ways to reach a server share: HTTP, Arrow Flight, Ray Serve."""

from dataclasses import dataclass

from graphsys.core.errors import ConfigError
from graphsys.deploy.serving.access_log import AccessLog
from graphsys.deploy.serving.auth import Tokens, make_tokens
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
