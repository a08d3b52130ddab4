"""The examples of the repository run as they stand."""

import importlib.util
from pathlib import Path

import pytest
from helpers.cli_runs import answer, generated_store

from graphsys.core.config import load_run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated_store(tmp_path_factory.mktemp("examples"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_run_file_is_valid(path: Path) -> None:
    load_run(path)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_run_trains(
    path: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    result = answer(["train", path.name, *_small(store, tmp_path)], capsys)
    assert result["test"]["accuracy"] > 0.3


@pytest.mark.skipif(importlib.util.find_spec("dgl") is None, reason="DGL is not installed")
def test_the_example_model_in_dgl_style_trains(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    model = ["--set", "model.class=my_models:DglNet", "--set", "model.style=dgl"]
    result = answer(["train", "my_model.yaml", *model, *_small(store, tmp_path)], capsys)
    assert result["test"]["accuracy"] > 0.3


def _small(store: Path, tmp_path: Path) -> list[str]:
    changes = (f"store={store}", f"out={tmp_path / 'run'}", "trainer.epochs=2", "sampler.batch_size=64")
    return [part for change in changes for part in ("--set", change)]
