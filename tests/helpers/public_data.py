"""Where the public test graphs lie; tests that need one are skipped where it is absent."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def public_graph(name: str) -> Path:
    """Return the path of a public graph's file, or skip the test."""
    folder = Path(os.environ.get("GRAPHSYS_TEST_DATA", _BESIDE))
    path = folder / name
    if not path.is_file():
        pytest.skip(f"{path} is absent; set GRAPHSYS_TEST_DATA to the folder that holds {name}")
    return path
