"""The command that serves tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphsys.cli.options import Json, Quiet

if TYPE_CHECKING:
    from graphsys.deploy.serving.server import Ready


def serve(
    tables: Annotated[
        list[Path] | None, typer.Argument(metavar="TABLE...", help="Embedding tables; the first one is active.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of HTTP; 0: any free one.", min=0, max=65535)] = 8080,
    watch: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder in which new tables appear.")] = None,
    activate_on_arrival: Annotated[
        bool, typer.Option("--activate-on-arrival", help="Make a table active as soon as it appears in --watch.")
    ] = False,
    metric: Annotated[
        Literal["cosine", "dot", "l2"], typer.Option(help="Nearness that a search uses when it names none.")
    ] = "cosine",
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with one `token [expiry]` a line; or set $GRAPHSYS_TOKEN."),
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
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve tables over HTTP until SIGTERM or Ctrl-C; /docs lists what can be asked.

    With --json, one line on standard output says when the first table is active: url, version.
    """
    from graphsys.cli.output import announcing
    from graphsys.core.errors import ConfigError
    from graphsys.deploy.serving.server import serve as serve_tables
    from graphsys.deploy.serving.settings import read_settings

    options = {
        "host": host,
        "port": port,
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
    with announcing(as_json=as_json, quiet=quiet) as (progress, announce):

        def on_ready(ready: "Ready") -> None:
            line = f"{ready.url} serves {ready.version or 'no table yet'}; Ctrl-C ends it"
            announce({"url": ready.url, "version": ready.version}, line)

        serve_tables(tables or [], settings, progress=progress, on_ready=on_ready)
