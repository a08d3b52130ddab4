"""A small job driven through the command line, for tests of commands and of their refusals."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from graphsys.cli.main import main

RUN: dict[str, Any] = {
    "memory": "256MiB",
    "sampler": {"fanouts": [4, 4], "batch_size": 64},
    "pack": {"mode": "packed", "window": 4, "host_cache": "20%"},
    "model": {"name": "sage", "hidden": 8},
    "trainer": {"epochs": 2, "checkpoint_every": 5},
}


def answer(argv: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run a command with ``--json`` and return what it printed; it must end with 0 and print one line."""
    capsys.readouterr()
    code = main([*argv, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    assert captured.out.count("\n") == 1
    value: dict[str, Any] = json.loads(captured.out)
    return value


def generated_store(folder: Path, *, seed: int = 0, name: str = "graph.gs") -> Path:
    """Generate a graph of 600 nodes with 8 features and 3 classes, and import it."""
    raw = folder / f"raw-{seed}"
    size = ["--nodes=600", "--edges=4000", "--features=8", "--classes=3", f"--seed={seed}"]
    assert main(["generate", *size, f"--out={raw}", "--quiet"]) == 0
    assert main(["import", str(raw), f"--out={folder / name}", "--memory=64MiB", "--quiet"]) == 0
    return folder / name


def write_run(folder: Path, *, store: Path, name: str = "run", **sections: Any) -> Path:
    """Write ``folder/<name>.yaml``; keyword arguments replace keys of the whole or of a section."""
    tree = {"store": str(store), "out": str(folder / name), **RUN}
    for key, value in sections.items():
        tree[key] = {**tree[key], **value} if isinstance(value, dict) and key in tree else value
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path
