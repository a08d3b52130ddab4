"""The same application as a deployment of Ray Serve: every replica is a process that answers from its own mapping.

Replicas share nothing but files: the tables, and the one that says which of them is active (``agreement.py``).
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from starlette.types import Receive, Scope, Send

from graphsys.core.config_parts import Section
from graphsys.core.errors import ClusterError, ConfigError
from graphsys.core.progress import SILENT, Progress
from graphsys.deploy.ray_session import cluster_at
from graphsys.deploy.serving.agreement import Agreement
from graphsys.deploy.serving.app import make_app
from graphsys.deploy.serving.listening import bind, check_certificate
from graphsys.deploy.serving.service import first_table, make_service
from graphsys.deploy.serving.settings import ServeSettings

NAME = "graphsys"  # of the application, and of its one deployment
CHOICE_NAME = "active-table.json"
READY_S = 600.0  # longest start of the first replicas, which compare the checksums of a table
END_S = 20.0  # longest end of Serve, once its replicas have drained
_LOOK_S = 0.2
_QUIET_PORTS = range(20000, 30000)  # neither Ray's workers nor connections of any program take one of these by chance
_PORT_TRIES = 100


class Scale(Section):
    """How many replicas there are, and what each takes."""

    min_replicas: int = Field(1, ge=1, description="Fewest replicas.")
    max_replicas: int = Field(1, ge=1, description="Most replicas; as many as the fewest: their number is fixed.")
    target_requests: float = Field(8.0, gt=0, description="Requests under way per replica that Ray Serve aims at.")
    cpus: float = Field(1.0, gt=0, description="Cores that Ray sets aside for a replica.")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, fewer than min_replicas, {self.min_replicas}")
        return self

    def options(self, settings: ServeSettings) -> dict[str, Any]:
        """Return the options of the deployment, as Ray Serve names them."""
        options: dict[str, Any] = {
            # The limit of one replica; what is above it waits in the proxy.
            "max_ongoing_requests": settings.max_concurrency + settings.max_waiting,
            "graceful_shutdown_timeout_s": settings.drain_s,
            "ray_actor_options": {"num_cpus": self.cpus},
        }
        if self.max_replicas == self.min_replicas:
            return {**options, "num_replicas": self.min_replicas}
        scaling = {
            "min_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "target_ongoing_requests": self.target_requests,
        }
        return {**options, "autoscaling_config": scaling}


class RayPlan(Section):
    """What every replica is made from; it travels as plain values."""

    tables: list[Path] = Field(description="Embedding tables; the first one is active at first.")
    choice: Path = Field(description="File in which replicas agree on the active table; all of them see it.")
    settings: dict[str, Any] = Field(default_factory=dict, description="Settings of the server.")
    scale: Scale = Field(default_factory=Scale)

    def serve_settings(self) -> ServeSettings:
        """Return the settings as the server takes them."""
        return ServeSettings.model_validate(self.settings)


def make_plan(tables: Sequence[Path], settings: ServeSettings, scale: Scale, choice: Path | None = None) -> RayPlan:
    """Return a plan whose paths hold in every process.

    Raises:
        ConfigError: A setting is not for replicas.
    """
    if settings.flight_port is not None:
        raise ConfigError("--flight-port is not for --ray: its replicas share no port; serve Flight beside it")
    folder = settings.watch or (tables[0].parent if tables else None)
    if folder is None and choice is None:
        raise ConfigError("there is nothing to serve: name a TABLE, or a folder with --watch")
    values = settings.model_dump(mode="json", exclude_defaults=True)
    for name in ("run", "watch", "token_file", "tls_cert", "tls_key"):
        if values.get(name) is not None:
            values[name] = str(Path(values[name]).absolute())
    return RayPlan(
        tables=[path.absolute() for path in tables],
        choice=(choice or (folder or Path()) / CHOICE_NAME).absolute(),
        settings=values,
        scale=scale,
    )


class Replica:
    """One replica as an ASGI application; it begins with the agreed table and ends with its process."""

    def __init__(self, plan: RayPlan) -> None:
        settings = plan.serve_settings()
        self._service = make_service(settings)
        first = first_table(self._service, plan.tables)
        self._agreement = Agreement(self._service.registry, plan.choice, every_s=settings.watch_s)
        self._agreement.begin(first)
        if self._service.watch is not None:
            self._service.watch.start()
        self._app = make_app(self._service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or take part in the start and the end of the process."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{message['type']}.complete"})
        self._agreement.stop()
        self._service.close()
        await send({"type": "lifespan.shutdown.complete"})


def application(plan: RayPlan) -> Any:
    """Return the Ray Serve application of a plan; a Serve config names it and gives its ``args``."""
    from ray import serve

    values = plan.model_dump(mode="json")

    def build() -> Replica:
        return Replica(RayPlan.model_validate(values))

    ingress: Any = serve.ingress(build)
    deployment: Any = serve.deployment(ingress(), name=NAME, **plan.scale.options(plan.serve_settings()))
    return deployment.bind()


def serve_on_ray(
    plan: RayPlan,
    *,
    address: str = "local",
    stopping: threading.Event,
    progress: Progress = SILENT,
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve on a Ray cluster until ``stopping`` is set.

    Args:
        address: Of the cluster; ``local`` starts one on this machine, and ends it.
        on_ready: Is told the URL once every first replica answers.

    Raises:
        ConfigError: The cluster, the port, a certificate or a token cannot be used.
        ArtefactError: A table is damaged, or none.
        ClusterError: The replicas did not start.
    """
    settings = _checked(plan)
    from ray import serve

    with cluster_at(address, progress):
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        progress.message("starting Ray Serve")
        serve.start(proxy_location="EveryNode", http_options=http_options(settings))
        try:
            _run(plan, stopping)
            if not stopping.is_set():
                on_ready(settings.url(settings.port))
            while not stopping.wait(_LOOK_S):
                pass
        finally:
            _bounded(serve.shutdown if address == "local" else lambda: serve.delete(NAME), settings.drain_s + END_S)


def _checked(plan: RayPlan) -> ServeSettings:
    """Refuse here, in one sentence, what every replica would refuse; return the settings, with the port to use.

    Raises:
        ConfigError: An address, a certificate or a token does not allow it.
        ArtefactError: A table is damaged, or none.
    """
    settings = plan.serve_settings()
    check_certificate(settings)
    service = make_service(settings)
    first_table(service, plan.tables)
    service.close()
    return settings.model_copy(update={"port": _free_port(settings)})


def _free_port(settings: ServeSettings) -> int:
    """Return the port to use, at which nobody listens: Serve's proxies bind it seconds later.

    Raises:
        ConfigError: The address is not this machine's, or the port is taken.
    """
    if settings.port == 0:
        for port in random.sample(_QUIET_PORTS, _PORT_TRIES):
            with suppress(ConfigError):
                return _bound_port(settings, port)
    return _bound_port(settings, settings.port)


def _bound_port(settings: ServeSettings, port: int) -> int:
    with bind(settings.model_copy(update={"port": port})) as listener:
        return int(listener.getsockname()[1])


def http_options(settings: ServeSettings) -> dict[str, Any]:
    """Return how Ray Serve's proxies listen, as Serve names it."""
    options: dict[str, Any] = {
        "host": settings.host,
        "port": settings.port,
        "request_timeout_s": settings.request_time_s,
        "keep_alive_timeout_s": int(settings.idle_time_s),
    }
    if settings.tls_cert is not None:
        options |= {"ssl_certfile": str(settings.tls_cert), "ssl_keyfile": str(settings.tls_key)}
    return options


def _run(plan: RayPlan, stopping: threading.Event) -> None:
    """Deploy the application; return when it runs, or when ``stopping`` is set."""
    from ray import serve

    app = application(plan)
    failed: list[Exception] = []

    def run() -> None:
        try:
            serve.run(app, name=NAME, route_prefix="/")
        except (RuntimeError, OSError) as error:  # what Serve raises for every failure of a replica
            failed.append(error)

    running = threading.Thread(target=run, name="ray-serve-run", daemon=True)
    running.start()
    end = time.monotonic() + READY_S
    while running.is_alive() and not stopping.is_set() and time.monotonic() < end:
        running.join(_LOOK_S)
    if failed:
        reason = [line for line in str(failed[0]).splitlines() if line.strip()]
        raise ClusterError(f"the replicas do not start: {reason[-1].strip() if reason else failed[0]!r}") from failed[0]
    if running.is_alive() and not stopping.is_set():
        raise ClusterError(f"no replica was ready within {READY_S:.0f} seconds; see Ray's logs, or take fewer replicas")


def _bounded(end: Callable[[], None], seconds: float) -> None:
    """Call ``end`` and wait for it no longer than that; what it leaves ends with the cluster."""
    ending = threading.Thread(target=end, name="ray-serve-end", daemon=True)
    ending.start()
    ending.join(seconds)
