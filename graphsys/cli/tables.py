"""The bricks of all tables for people: columns, keys and values, costs of stages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from graphsys.core.units import format_bytes, format_seconds


def grid(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> Group:
    """Return a titled table; the first ``left`` columns are text, the others are figures."""
    return _titled(title, _columns(head, left), rows)


def key_values(title: str, values: Mapping[str, Any]) -> Group:
    """Return a titled table of one value per line; nested values are named with dots."""
    table = _columns(("", ""), 2)
    table.show_header = False
    return _titled(title, table, _lines(values))


def _columns(head: Sequence[str], left: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(head):
        table.add_column(name, justify="left" if index < left else "right", overflow="fold")
    return table


def _titled(title: str, table: Table, rows: Iterable[Sequence[str]]) -> Group:
    for row in rows:
        # Text, not markup: a path or a file name may hold square brackets.
        table.add_row(*(Text(cell) for cell in row))
    return Group(Text(title, style="bold", overflow="fold"), table)


def _lines(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", format_value(key, value)


def format_value(key: str, value: Any) -> str:
    """Return a value as people read it; names that speak of bytes or seconds carry their unit."""
    if isinstance(value, list | tuple):
        return ", ".join(format_value(key, item) for item in value) or "-"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    return _number(key, value) if isinstance(value, int | float) else str(value)


def _number(key: str, value: float) -> str:
    if "bytes" in key:
        return format_bytes(value)
    if key.endswith("_s") or key.startswith("seconds"):
        return format_seconds(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def stage_table(stages: Mapping[str, Mapping[str, Any]]) -> Group:
    """Return seconds, device bytes, useful bytes and peak memory per stage."""
    head = ("stage", "seconds", "disk read", "written", "useful", "peak memory")
    return grid("Stages", head, [_stage_row(name, report) for name, report in stages.items()])


def _stage_row(name: str, report: Mapping[str, Any]) -> tuple[str, ...]:
    if not report["seconds"]:
        return (name, "-", "-", "-", "-", "-")
    label = f"{name} (earlier)" if report["skipped"] else name
    figures = ("device_bytes_read", "device_bytes_written", "useful_bytes", "peak_rss_bytes")
    return (label, format_seconds(report["seconds"]), *(format_bytes(report[key]) for key in figures))
