"""Tables stay within a terminal of 80 columns, without folding a cell."""

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from graphsys.cli.run_tables import comparison_table, demo_tables
from graphsys.cli.tables import stage_table

LARGE = {
    "seconds": 35999.0,
    "device_bytes_read": 99 << 30,
    "device_bytes_written": 99 << 20,
    "useful_bytes": 99 << 20,
    "peak_rss_bytes": 99 << 20,
}


def lines(shown: RenderableType, width: int) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(shown, soft_wrap=isinstance(shown, str))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_the_costs_of_stages_fit() -> None:
    table = stage_table({"evaluate": {**LARGE, "skipped": True}, "check": {**LARGE, "skipped": False}})
    assert lines(table, 80) == lines(table, 200)


def test_predicted_beside_measured_fits() -> None:
    names = ("seconds", "device_bytes_read", "device_bytes_written")
    table = comparison_table([{"stage": "evaluate", **{name: (LARGE[name], LARGE[name]) for name in names}}])
    assert lines(table, 80) == lines(table, 200)


def test_neighbours_of_the_demo_fit_and_paths_are_as_short_as_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    near = [{"id": 1365, "label": 0, "score": 0.99951}] * 4
    result = {
        "test": {"accuracy": 0.98},
        "peak_rss_bytes": 1,
        "stages": {},
        "lookups": [{"id": 1001, "label": 6, "neighbours": near}],
        "paths": {
            "store": str(tmp_path / "d/digits.gs"),
            "run file": str(tmp_path / "d/digits.yaml"),
            "run folder": str(tmp_path / "d/run"),
            "embedding table": "/elsewhere/embeddings.gs",
        },
    }
    shown = demo_tables(result, program="graphsys")
    assert all(lines(part, 80) == lines(part, 200) for part in shown if not isinstance(part, str))
    commands = next(part for part in shown if isinstance(part, str) and part.startswith("Try next"))
    assert "graphsys inspect d/digits.gs\n" in commands
    assert "graphsys lookup /elsewhere/embeddings.gs --id 1001" in commands
    assert "graphsys serve /elsewhere/embeddings.gs --run d/digits.yaml\n" in commands
    assert "graphsys train d/digits.yaml --set out=d/run-gcn" in commands
