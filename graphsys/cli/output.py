"""What a command says: one JSON line for machines, or tables for people; progress goes to standard error."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphsys.cli.progress import LineProgress, TerminalProgress
from graphsys.core.progress import SILENT, Progress

if TYPE_CHECKING:
    from rich.console import RenderableType


class Output:
    """Collects a command's result while it runs; :func:`reporting` prints it when the command is done."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.values: dict[str, Any] = {}
        self.shown: list[RenderableType] = []

    def result(self, values: dict[str, Any], *shown: "RenderableType") -> None:
        """Set what ``--json`` prints, and the tables or lines that people see instead."""
        self.values = values
        self.shown = list(shown)


@contextmanager
def reporting(*, as_json: bool, quiet: bool) -> Iterator[Output]:
    """Yield the command's output; print its result when the block ends well, and nothing when it fails.

    With ``as_json``, standard output carries one JSON object and nothing else: what libraries print there meanwhile
    goes to standard error.
    """
    stdout = sys.stdout
    progress = _progress(quiet)
    output = Output(progress if progress is not None else SILENT)
    try:
        with redirect_stdout(sys.stderr):
            yield output
    finally:
        if progress is not None:
            progress.close()
    if as_json:
        stdout.write(json_line(output.values) + "\n")
        stdout.flush()
    else:
        _print(output.shown)


@contextmanager
def announcing(*, as_json: bool, quiet: bool) -> Iterator[tuple[Progress, Callable[[dict[str, Any], str], None]]]:
    """Yield progress, and a function that says one thing while the command goes on: as JSON, or as a line for people.

    What libraries print meanwhile goes to standard error.
    """
    stdout = sys.stdout
    progress = _progress(quiet)

    def announce(values: dict[str, Any], line: str) -> None:
        stdout.write((json_line(values) if as_json else line) + "\n")
        stdout.flush()

    try:
        with redirect_stdout(sys.stderr):
            yield progress if progress is not None else SILENT, announce
    finally:
        if progress is not None:
            progress.close()


def json_line(values: dict[str, Any]) -> str:
    """Return ``values`` as one line of strict JSON: paths become text, NaN and infinities become null."""
    return json.dumps(_plain(values), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _progress(quiet: bool) -> LineProgress | TerminalProgress | None:
    if quiet:
        return None
    return TerminalProgress() if sys.stderr.isatty() else LineProgress(sys.stderr)


def _print(shown: "list[RenderableType]") -> None:
    from rich.console import Console

    # Wide enough that a path in a log file is not cut; a terminal keeps its own width.
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
    for item in shown:
        console.print(item, soft_wrap=isinstance(item, str))
