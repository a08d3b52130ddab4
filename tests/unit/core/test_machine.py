import re
import sys
from pathlib import Path

import pytest

from graphsys.core import machine as module
from graphsys.core.machine import command, commit, machine, versions


def test_the_machine_names_processor_cores_and_memory() -> None:
    found = machine()
    assert found["processor"]
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 1 << 28


def test_versions_name_what_computes_without_loading_it() -> None:
    found = versions()
    assert {"python", "graphsys", "torch", "numpy", "numba"} <= set(found)
    assert all(re.match(r"\d+\.", value) for value in found.values())


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    assert commit() is None
    (tmp_path / ".git").mkdir()  # not one that git reads
    assert commit() is None


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["/opt/bin/graphsys", "train", "my run.yaml"], "graphsys train 'my run.yaml'"),
        (["/opt/graphsys/cli/__main__.py", "train"], "python -m graphsys.cli train"),
    ],
)
def test_a_command_is_shown_as_it_is_typed(argv: list[str], shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert command() == shown
