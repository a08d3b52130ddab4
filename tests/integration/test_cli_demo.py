"""The demo is the first thing that a newcomer sees: it must work, and be good."""

from pathlib import Path

import pytest
from helpers.cli_runs import answer

from graphsys.cli.main import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--out", str(folder / "demo"), "--quiet"]) == 0
    return folder / "demo"


def test_the_demo_classifies_digits_well(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(["demo", "--out", str(demo)], capsys)  # finished: answers again without training again
    assert found["test"]["accuracy"] >= 0.95
    assert found["stages"]["train"]["skipped"]


def test_the_demo_goes_the_out_of_core_way(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(["demo", "--out", str(demo)], capsys)
    loader = found["stages"]["train"]["details"]["loader"]
    assert found["stages"]["train"]["details"]["plan"]["mode"] == "packed"
    assert loader["rows_hit"] > 0
    assert loader["rows_fetched"] > 0


def test_most_neighbours_of_a_digit_show_the_same_digit(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lookups = answer(["demo", "--out", str(demo)], capsys)["lookups"]
    same = [near["label"] == item["label"] for item in lookups for near in item["neighbours"]]
    assert sum(same) >= 0.8 * len(same)


def test_the_demo_says_where_everything_lies_and_what_to_try(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(demo), "--quiet"]) == 0
    out = capsys.readouterr().out
    for path in ("digits.gs", "digits.yaml", "run", "embeddings.gs"):
        assert str(demo / path) in out
    assert f"lookup {demo / 'embeddings.gs'}" in out


def test_the_commands_that_the_demo_suggests_work(demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer(["inspect", str(demo / "digits.gs")], capsys)
    answer(["lookup", str(demo / "embeddings.gs"), "--id", "0", "--k", "3"], capsys)
    other = ["--set", f"out={demo / 'run-gcn'}", "--set", "model.name=gcn", "--set", "trainer.epochs=2"]
    answer(["train", str(demo / "digits.yaml"), *other], capsys)
