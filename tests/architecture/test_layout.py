"""Folders are layers, one import name owns them, and modules stay small."""

import ast
from pathlib import Path

import pytest

import graphsys

ROOT = Path(__file__).resolve().parents[2]
LAYERS = ["storage", "samplers", "trainers", "deploy"]
MODULES = sorted(path for top in ("graphsys", *LAYERS) for path in (ROOT / top).rglob("*.py"))
MOST_LINES = 400


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_is_a_relative_link_below_the_one_import_name(layer: str) -> None:
    link = ROOT / "graphsys" / layer
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{layer}"


def test_no_module_is_too_long_to_read_at_once() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES} == {}


def test_no_module_silences_the_type_checker() -> None:
    loud = [str(path.relative_to(ROOT)) for path in MODULES if "type: ignore" in path.read_text()]
    assert loud == []


def test_nothing_that_is_served_is_read_by_a_way_that_runs_code() -> None:
    loaders = (
        "import pickle",
        "from pickle",
        "allow_pickle=True",
        "weights_only=False",
        "joblib",
        "cloudpickle",
        "eval(",
    )
    serving = [path for path in MODULES if "serving" in path.parts]
    assert serving
    found = [f"{path.relative_to(ROOT)}: {word}" for path in serving for word in loaders if word in path.read_text()]
    assert found == []


def test_no_error_is_raised_that_says_nothing_of_its_kind() -> None:
    vague = {"Exception", "BaseException"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and _raised_name(node) in vague
    ]
    assert found == []


def _raised_name(node: ast.Raise) -> str:
    call = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return call.id if isinstance(call, ast.Name) else ""


def test_the_public_names_exist() -> None:
    for name in dir(graphsys):
        assert getattr(graphsys, name) is not None
