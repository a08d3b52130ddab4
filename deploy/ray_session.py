"""A Ray cluster for the time of one training: one of this machine's own, or one that runs elsewhere."""

import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, first_line
from graphsys.core.machine import cores
from graphsys.core.progress import Progress

CONNECT_S = 10.0  # longest wait for a cluster's address to answer

_TOKEN = "RAY_AUTH_TOKEN"

# What opens a conversation in HTTP/2, gRPC's transport: the preface, and a frame of settings without any. The answer is
# such a frame (RFC 9113, sections 3.4 and 4.1).
_FRAME_HEADER = 9
_SETTINGS = 4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0))

# Ray reads these when it is loaded or when its processes start; what the user has set stays.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # keeps Ray from warning that it will change a default
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay where relative imports of the user's code work
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What a connected cluster has."""

    cpus: int
    gpus: int
    dashboard: str | None  # URL of its web page
    token: str | None = None  # that the page asks for, where it was made up for this session


@contextmanager
def cluster_of(run: RunConfig, progress: Progress) -> Iterator[Cluster]:
    """Connect to the cluster of a run while the block runs; ``local`` starts one here, and ends it.

    Raises:
        ConfigError: It does not answer, or this process is connected to another one.
    """
    with cluster_at(run.cluster.address, progress, dashboard=run.cluster.dashboard) as cluster:
        yield cluster


@contextmanager
def cluster_at(address: str, progress: Progress, *, dashboard: bool = False) -> Iterator[Cluster]:
    """Connect to the cluster at ``address``; as :func:`cluster_of` does.

    Args:
        dashboard: Whether one that is started here gets Ray's web page.
    """
    embedded = address == "local"
    with (
        _environment(_QUIET | (_embedded() if embedded else {})) as new,
        _started_here(progress, dashboard) if embedded else _connected(address) as cluster,
    ):
        yield replace(cluster, token=new.get(_TOKEN))


def _embedded() -> dict[str, str]:
    # Ray lets its workers go behind all other processes of a machine, which on a busy one is next to never.
    quiet = {"GLOO_SOCKET_IFNAME": "lo", "RAY_worker_niceness": "0"}
    if "ray" in sys.modules and not _token.cache_info().currsize:
        return quiet  # Ray has read the caller's settings, and keeps to them
    # Ray takes the machine's own address, and listens on every interface, unless it is told that there can be no other
    # machine, as it is on macOS. Other users of this one are asked for a token that only the session's processes know.
    # Without these two Ray would leave one in the home folder, for later clusters to ask for.
    alone = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    return {**quiet, **alone, "RAY_AUTH_MODE": "token", _TOKEN: _token()}


@cache
def _token() -> str:
    """Return the token of this process's sessions; Ray reads it once."""
    return uuid.uuid4().hex


@contextmanager
def _started_here(progress: Progress, dashboard: bool) -> Iterator[Cluster]:
    progress.message("starting Ray on this machine")
    # Not below the run's folder: the names of Ray's sockets may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="graphsys-ray-"))
    try:
        with _initialised(
            address="local",
            num_cpus=cores(),
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            _temp_dir=str(folder),
        ) as cluster:
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _connected(address: str) -> Iterator[Cluster]:
    if address != "auto":
        answer_or_refuse(address, key="cluster.address")
        _speak_or_refuse(address)
    with _initialised(address=address) as cluster:
        yield cluster


def answer_or_refuse(address: str, *, key: str) -> None:
    """Return when something listens at ``address``.

    Raises:
        ConfigError: Nothing does within ten seconds, or it is no address.
    """
    host, port = _host_and_port(address)
    if host is None or port is None:
        raise ConfigError(f"{key} is '{address}', which names no host and port; write it as host:port")
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        raise ConfigError(
            f"{key} {address} does not answer ({error.strerror or error}); start the cluster with `ray start --head`, "
            f"or mend the address"
        ) from error


def _speak_or_refuse(address: str) -> None:
    """Return when a server at ``address`` speaks gRPC, as Ray's do: of another, Ray itself asks for minutes on end.

    Raises:
        ConfigError: It does not within ten seconds.
    """
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        return  # its first words would be encrypted
    said = b""
    try:
        with socket.create_connection(_host_and_port(address), timeout=CONNECT_S) as link:
            link.sendall(_PREFACE)
            while len(said) < _FRAME_HEADER and (some := link.recv(_FRAME_HEADER - len(said))):
                said += some
    except OSError:
        said = b""  # silence, or a connection that is cut, is no answer
    if len(said) < _FRAME_HEADER or said[3] != _SETTINGS:
        raise ConfigError(
            f"cluster.address {address} answers, but not as a Ray cluster; give the address that `ray start --head` "
            f"prints, such as host:6379, or ray://host:10001"
        )


def _host_and_port(address: str) -> tuple[str | None, int | None]:
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        return parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:  # a port that is no number, or a bracket that is not closed
        return None, None


@contextmanager
def _initialised(**arguments: Any) -> Iterator[Cluster]:
    """``ray.init`` and ``ray.shutdown``; the handlers of signals are the caller's own in between."""
    import ray

    if ray.is_initialized():
        raise ConfigError("this process is connected to a Ray cluster already; call ray.shutdown() first")
    with _own_signals():
        try:
            context = ray.init(**arguments, logging_level=logging.ERROR, log_to_driver=False, namespace="graphsys")
        except Exception as error:  # Ray raises a bare one when its processes start too slowly
            raise _unusable(arguments["address"], error) from error
    try:
        count: Callable[[], dict[str, float]] = ray.cluster_resources
        has, page = count(), context.dashboard_url
        yield Cluster(
            cpus=int(has.get("CPU", 0)),
            gpus=int(has.get("GPU", 0)),
            dashboard=f"http://{page}" if page else None,
        )
    finally:
        with _own_signals():
            ray.shutdown()


def _unusable(address: str, error: Exception) -> ConfigError:
    if address == "local":
        return ConfigError(f"Ray cannot be started on this machine: {first_line(error)}")
    return ConfigError(
        f"cluster.address {address} cannot be used: {first_line(error)}; see `ray status` there, set "
        f"RAY_AUTH_MODE=token if the cluster asks for a token, or use `graphsys submit` from a machine outside it"
    )


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Set variables that are not set while the block runs; give those."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield new
    finally:
        for name in new:
            os.environ.pop(name, None)
