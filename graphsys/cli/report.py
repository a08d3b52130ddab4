"""The command about a run as a whole: report."""

from pathlib import Path
from typing import Annotated

import typer

from graphsys.cli.options import Json
from graphsys.cli.output import reporting


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run's folder: 'out' of its run file.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Page to write; report.html in the run's folder by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML page about a run: curves, time, bytes, prediction, provenance; also while the run is under way."""
    from graphsys.report.facts import read_facts
    from graphsys.report.page import write_report

    with reporting(as_json=as_json, quiet=True) as output:
        facts = read_facts(run)
        path = write_report(facts, out)
        output.result({"page": str(path), **facts.as_dict()}, f"{facts.sentence}\nThe page is {path}")
