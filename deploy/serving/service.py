"""What the ways to reach a server share: HTTP, Arrow Flight, Ray Serve."""

from dataclasses import dataclass

from graphsys.deploy.serving.registry import TableRegistry
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.deploy.serving.telemetry import Telemetry


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Everything a request may need."""

    settings: ServeSettings
    registry: TableRegistry
    telemetry: Telemetry


def make_service(settings: ServeSettings) -> Service:
    """Return a service that knows no table yet."""
    registry = TableRegistry(settings)
    return Service(settings=settings, registry=registry, telemetry=Telemetry(registry))
