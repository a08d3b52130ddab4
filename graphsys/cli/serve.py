"""The command that serves tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphsys.cli.options import Json, Quiet
from graphsys.cli.serve_ray import print_manifest, refuse_stray, serve_replicas

if TYPE_CHECKING:
    from graphsys.deploy.serving.server import Ready

_Address = Annotated[
    str | None, typer.Option(help="With --ray: a cluster that runs; one on this machine without.", show_default=False)
]
_Replicas = Annotated[int | None, typer.Option(help="With --ray, --emit-k8s: replicas, or the fewest; 1.", min=1)]
_MaxReplicas = Annotated[
    int | None, typer.Option(help="With --ray, --emit-k8s: most replicas; a fixed number without.", min=1)
]
_TargetRequests = Annotated[
    float | None, typer.Option(help="With --max-replicas: requests under way per replica to aim at; 8.")
]
_Image = Annotated[str | None, typer.Option(help="With --emit-k8s: container image with Ray and graphsys.")]
_Volume = Annotated[str | None, typer.Option(help="With --emit-k8s: claim:/path of the volume with the tables.")]
_Secret = Annotated[
    str | None, typer.Option(help="With --emit-k8s: secret whose key 'token' is the token; graphsys-token.")
]
_PodMemory = Annotated[str | None, typer.Option(help="With --emit-k8s: memory of each pod; 4GiB.")]


def serve(
    tables: Annotated[
        list[Path] | None, typer.Argument(metavar="TABLE...", help="Embedding tables; the first one is active.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of HTTP; 0: any free one.", min=0, max=65535)] = 8080,
    flight_port: Annotated[
        int | None, typer.Option(help="Port of Arrow Flight; 0: any free one; not served without.", min=0, max=65535)
    ] = None,
    run_file: Annotated[
        Path | None,
        typer.Option(
            "--run",
            metavar="RUN.yaml",
            help="The run that made the tables, for new nodes and predictions; one beside a table is found.",
        ),
    ] = None,
    watch: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder in which new tables appear.")] = None,
    activate_on_arrival: Annotated[
        bool, typer.Option("--activate-on-arrival", help="Make a table active as soon as it appears in --watch.")
    ] = False,
    metric: Annotated[
        Literal["cosine", "dot", "l2"], typer.Option(help="Nearness that a search uses when it names none.")
    ] = "cosine",
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File with a token a line, or a token and its expiry; or set $GRAPHSYS_TOKEN."
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="PEM", help="Certificate chain; serves HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="PEM", help="Private key of the certificate.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine although there is no token.")
    ] = False,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write one JSON line per request to standard error.")
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a limit, such as max_ids=20000; may be repeated."),
    ] = None,
    ray: Annotated[bool, typer.Option("--ray", help="Serve with several replicas, under Ray Serve.")] = False,
    address: _Address = None,
    replicas: _Replicas = None,
    max_replicas: _MaxReplicas = None,
    target_requests: _TargetRequests = None,
    emit_k8s: Annotated[
        bool, typer.Option("--emit-k8s", help="Serve nothing; print a KubeRay RayService manifest.")
    ] = False,
    image: _Image = None,
    volume: _Volume = None,
    token_secret: _Secret = None,
    pod_memory: _PodMemory = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve tables over HTTP until SIGTERM or Ctrl-C; /docs lists what can be asked.

    With --json, one line on standard output says when the first table is active: url, version, flight.
    """
    from graphsys.cli.output import announcing
    from graphsys.core.errors import ConfigError
    from graphsys.deploy.serving.server import serve as serve_tables
    from graphsys.deploy.serving.settings import read_settings

    options = {
        "host": host,
        "port": port,
        "flight_port": flight_port,
        "run": run_file,
        "watch": watch,
        "activate_on_arrival": activate_on_arrival,
        "metric": metric,
        "token_file": token_file,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "insecure": insecure,
        "access_log": access_log,
    }
    if not tables and watch is None:
        raise ConfigError("there is nothing to serve: name a TABLE, or a folder with --watch")
    if activate_on_arrival and watch is None:
        raise ConfigError("--activate-on-arrival needs a folder to --watch")
    settings = read_settings(options, overrides)
    scale = {"replicas": replicas, "max_replicas": max_replicas, "target_requests": target_requests}
    pods = {"image": image, "volume": volume, "token_secret": token_secret, "pod_memory": pod_memory}
    refuse_stray(ray=ray, emit_k8s=emit_k8s, address=address, scale=scale, pods=pods)
    if emit_k8s:
        print_manifest(tables or [], settings, scale, pods, as_json=as_json)
        return
    if ray:
        serve_replicas(tables or [], settings, scale, address or "local", as_json=as_json, quiet=quiet)
        return
    with announcing(as_json=as_json, quiet=quiet) as (progress, announce):

        def on_ready(ready: "Ready") -> None:
            beside = f", {ready.flight} too" if ready.flight else ""
            line = f"{ready.url} serves {ready.version or 'no table yet'}{beside}; Ctrl-C ends it"
            announce({"url": ready.url, "version": ready.version, "flight": ready.flight}, line)

        serve_tables(tables or [], settings, progress=progress, on_ready=on_ready)
