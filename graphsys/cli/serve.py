"""The command that serves tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphsys.cli.options import Json, Quiet

if TYPE_CHECKING:
    from graphsys.deploy.serving.server import Ready


def serve(
    tables: Annotated[
        list[Path],
        typer.Argument(metavar="TABLE...", help="Embedding tables; the first is active.", show_default=False),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of HTTP; 0: any free one.", min=0, max=65535)] = 8080,
    metric: Annotated[
        Literal["cosine", "dot", "l2"], typer.Option(help="Nearness that a search uses when it names none.")
    ] = "cosine",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Serve tables over HTTP until SIGTERM or Ctrl-C: look-up by id, the tables themselves, health and figures."""
    from graphsys.cli.output import announcing
    from graphsys.deploy.serving.server import serve as serve_tables
    from graphsys.deploy.serving.settings import ServeSettings

    settings = ServeSettings(host=host, port=port, metric=metric)
    with announcing(as_json=as_json, quiet=quiet) as (progress, announce):

        def on_ready(ready: "Ready") -> None:
            announce(
                {"url": ready.url, "version": ready.version}, f"{ready.url} serves {ready.version}; Ctrl-C ends it"
            )

        serve_tables(tables, settings, progress=progress, on_ready=on_ready)
