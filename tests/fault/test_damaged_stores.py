"""A byte of a store that changed is found before anything is made from it, whichever command meets it first."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.artefacts import flip
from helpers.cli_runs import answer, generated_store, write_run
from helpers.refusals import assert_refused

from graphsys.cli.main import main
from graphsys.core.config import RunConfig, load_run
from graphsys.core.errors import CorruptError
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit
from graphsys.trainers.inference import infer, open_trained
from graphsys.trainers.prepare import prepare

X = "nodes/node/x/c/0/0"
PLACES = {
    "features": (X, 50),
    "labels": ("nodes/node/y/c/0", 50),
    "split": ("nodes/node/split/c/0", 50),
    "indptr": ("topology/node__to__node/indptr/c/0", 1600),
    "indices": ("topology/node__to__node/indices/c/0", 1600),
}
COMMANDS = {
    "train": ["train", "--set", "out=new"],
    "train, finished": ["train"],
    "train, more epochs": ["train", "--set", "trainer.epochs=3"],
    "train, in memory": ["train", "--set", "out=new", "--set", "pack.mode=memory"],
    "pack": ["pack", "--set", "out=new"],
    "evaluate": ["evaluate"],
    "embed": ["embed", "--out", "new.gs"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a trained run that remembers it."""
    folder = tmp_path_factory.mktemp("finished")
    run = write_run(folder, store=generated_store(folder))
    assert main(["train", str(run), "--quiet"]) == 0
    return folder


@pytest.mark.parametrize(("file", "place"), PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("argv", COMMANDS.values(), ids=COMMANDS)
def test_every_command_refuses_a_damaged_store_and_writes_nothing(
    argv: list[str],
    file: str,
    place: int,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(finished)
    path = finished / "graph.gs" / file
    flip(path, place)
    try:
        command = [argv[0], "run.yaml", *argv[1:], "--quiet"]
        assert_refused(command, names=(file, "chunk 0 is corrupt", "offset 0"), work=finished, capsys=capsys)
    finally:
        flip(path, place)


def _infer(run: RunConfig) -> Any:
    return infer(open_trained(run), redo=True)


@pytest.mark.parametrize("call", [fit, prepare, evaluate, _infer])
def test_calls_from_python_refuse_it_too(call: Callable[[RunConfig], Any], finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "job")
    write_run(tmp_path / "job", store=tmp_path / "job/graph.gs", trainer={"epochs": 3 if call in (fit, prepare) else 2})
    flip(tmp_path / "job/graph.gs" / X, 77)
    with pytest.raises(CorruptError, match=r"nodes/node/x/c/0/0: chunk 0 is corrupt"):
        call(load_run(tmp_path / "job/run.yaml"))


def test_sampling_needs_no_features_and_packing_does(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "graph.gs"
    shutil.copytree(finished / "graph.gs", store)
    run = str(write_run(tmp_path, store=store))
    flip(store / X, 50)
    sampled = answer(["sample", run], capsys)["stages"]["check"]
    assert not any("/x" in name for name in sampled["details"]["arrays"])
    assert_refused(["pack", run, "--quiet"], names=(X, "chunk 0 is corrupt"), work=tmp_path, capsys=capsys)
    flip(store / X, 50)
    assert answer(["pack", run], capsys)["stages"]["check"]["details"]["arrays"] == ["nodes/node/x"]


def test_a_store_is_read_once_for_all_commands_of_a_run(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "graph.gs"
    shutil.copytree(finished / "graph.gs", store)
    run = str(write_run(tmp_path, store=store))
    first = answer(["train", run], capsys)["stages"]["check"]
    assert first["useful_bytes"] > 600 * 8 * 4
    later = {
        "train": answer(["train", run, "--set", "trainer.epochs=3"], capsys)["stages"]["check"],
        "evaluate": answer(["evaluate", run, "--set", "trainer.epochs=3", "--overwrite"], capsys)["check"],
        "embed": answer(["embed", run, "--set", "trainer.epochs=3"], capsys)["check"],
    }
    assert {name: check["skipped"] for name, check in later.items()} == dict.fromkeys(later, True)
    assert later["evaluate"]["device_bytes_read"] == later["embed"]["device_bytes_read"] == 0
    (store / X).touch()
    again = answer(["evaluate", run, "--set", "trainer.epochs=3"], capsys)["check"]
    assert again["details"]["arrays"] == ["nodes/node/x"]
