"""``graphsys serve`` with several replicas: under Ray here, or as a manifest for Kubernetes."""

import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsys.cli.output import announcing, json_line
from graphsys.core.errors import ConfigError

if TYPE_CHECKING:
    from graphsys.deploy.serving.ray_app import RayPlan
    from graphsys.deploy.serving.settings import ServeSettings

_SECRET = "graphsys-token"
_POD_MEMORY = "4GiB"
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def refuse_stray(
    *, ray: bool, emit_k8s: bool, address: str | None, scale: Mapping[str, Any], pods: Mapping[str, Any]
) -> None:
    """Refuse options that this way to serve would not look at.

    Raises:
        ConfigError: There are such.
    """
    if ray and emit_k8s:
        raise ConfigError("--ray serves now, and --emit-k8s only prints a manifest; leave one of them out")
    if not (ray or emit_k8s):
        _refuse(scale, "goes with --ray or --emit-k8s")
    if not ray:
        _refuse({"address": address}, "goes with --ray")
    if not emit_k8s:
        _refuse(pods, "goes with --emit-k8s")


def _refuse(options: Mapping[str, Any], why: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise ConfigError(f"{' and '.join(given)} {why}")


def print_manifest(
    tables: Sequence[Path],
    settings: "ServeSettings",
    scale: Mapping[str, Any],
    pods: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Print a RayService manifest."""
    from importlib.metadata import version

    from graphsys.core.units import parse_bytes
    from graphsys.deploy.serving.ray_service import ray_service

    if pods["image"] is None:
        raise ConfigError("--emit-k8s needs --image: an image with Ray and graphsys, such as me/graphsys:1")
    manifest = ray_service(
        _plan(tables, settings, scale),
        image=pods["image"],
        ray_version=version("ray"),
        memory=parse_bytes(pods["pod_memory"] or _POD_MEMORY),
        secret=None if settings.insecure else pods["token_secret"] or _SECRET,
        volume=pods["volume"],
    )
    sys.stdout.write(manifest if not as_json else json_line({"manifest": manifest}) + "\n")


def serve_replicas(
    tables: Sequence[Path],
    settings: "ServeSettings",
    scale: Mapping[str, Any],
    address: str,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Serve under Ray until SIGTERM or Ctrl-C."""
    from graphsys.deploy.serving.ray_app import serve_on_ray

    stopping = threading.Event()
    plan = _plan(tables, settings, scale)
    with announcing(as_json=as_json, quiet=quiet) as (progress, announce):

        def on_ready(url: str) -> None:
            count = plan.scale.min_replicas
            announce({"url": url, "replicas": count}, f"{url} serves with {count} replicas; Ctrl-C ends it")

        before = {number: signal.signal(number, lambda *_: stopping.set()) for number in _SIGNALS}
        try:
            serve_on_ray(plan, address=address, stopping=stopping, progress=progress, on_ready=on_ready)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _plan(tables: Sequence[Path], settings: "ServeSettings", scale: Mapping[str, Any]) -> "RayPlan":
    from graphsys.deploy.serving.ray_app import Scale, make_plan

    fewest = scale["replicas"] or 1
    most = scale["max_replicas"] or fewest
    if most < fewest:
        raise ConfigError(f"--max-replicas is {most}, fewer than --replicas, {fewest}")
    target = scale["target_requests"]
    if target is not None and target <= 0:
        raise ConfigError(f"--target-requests is {target:g}; give more than 0")
    chosen = {} if target is None else {"target_requests": target}
    return make_plan(tables, settings, Scale(min_replicas=fewest, max_replicas=most, **chosen))
