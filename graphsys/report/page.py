"""One self-contained HTML page about a run: no network, no script, nothing beside it."""

import os
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import graphsys
from graphsys.core.errors import DiskError
from graphsys.report import pipeline, sections
from graphsys.report.facts import RunFacts
from graphsys.report.markup import Markup, join, tag
from graphsys.storage.files import disk_errors, write_bytes

REPORT_NAME = "report.html"
_DOCTYPE = "<!doctype html>\n<!-- graphsys report -->\n"
# Nothing may be loaded from anywhere, whatever a name in the run tries.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_report(facts: RunFacts, path: Path | None = None) -> Path:
    """Write the page; return where it lies. An earlier report there is replaced, another file is not.

    Args:
        path: ``report.html`` in the run's folder by default.

    Raises:
        DiskError: Something else lies there, or the system refused.
    """
    path = path or facts.folder / REPORT_NAME
    with disk_errors("read", path):
        taken = path.exists() and not (path.is_file() and _is_report(path))
    if taken:
        raise DiskError(f"{path} exists and is no report of graphsys; choose another --out, or remove it")
    write_bytes(path, render(facts).encode())
    return path


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_DOCTYPE)) == _DOCTYPE.encode()


def render(facts: RunFacts) -> str:
    """Return the page as text."""
    parts = [
        sections.learning(facts),
        sections.time(facts),
        pipeline.processes(facts),
        sections.traffic(facts),
        sections.prediction(facts),
        pipeline.foretold(facts),
        sections.stages(facts),
        sections.provenance(facts),
    ]
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("title", f"{facts.name} - graphsys run"),
        tag("style", Markup(_css())),
    )
    body = tag(
        "body",
        tag("a", "Skip to the results", href="#results", class_="skip"),
        sections.header(facts),
        tag("main", *parts, id="results"),
        tag("footer", f"Written {_now()} by graphsys {graphsys.__version__} on {os.uname().nodename}."),
    )
    return _DOCTYPE + tag("html", join(head, body), lang="en") + "\n"


def _css() -> str:
    return files("graphsys.report").joinpath("page.css").read_text(encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
