"""The main job through the command line: what each command answers, skips and continues."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from helpers.cli_runs import answer, generated_store, write_run
from helpers.refusals import snapshot

from graphsys.cli.main import main
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.generate import generate
from graphsys.storage.manifest import open_sealed_json


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a run file and a finished, embedded run."""
    folder = tmp_path_factory.mktemp("job")
    run = write_run(folder, store=generated_store(folder))
    assert main(["train", str(run), "--quiet"]) == 0
    assert main(["embed", str(run), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generated_store(tmp_path_factory.mktemp("store"))


def test_generate_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(["generate", "--nodes=100", "--edges=500", "--out", str(tmp_path / "raw")], capsys)
    assert (found["nodes"], found["edges"]) == (100, 500)
    assert (tmp_path / "raw" / "graph.json").is_file()


def test_generate_takes_the_shape_of_the_graph_and_of_its_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["--classes=3", "--communities=6", "--homophily=0.9", "--exponent=3", "--signal=0.5"]
    split = ["--train=0.1", "--val=0.2", "--test=0.3"]
    argv = ["generate", "--nodes=1000", "--edges=5000", *shape, *split]
    answer([*argv, "--out", str(tmp_path / "raw")], capsys)
    made = tmp_path / "library"
    spec = GenerateSpec(
        nodes=1000, edges=5000, classes=3, communities=6, homophily=0.9, exponent=3.0, signal=0.5,
        train=0.1, val=0.2, test=0.3,
    )  # fmt: skip
    generate(made, spec, memory=64 << 20)
    assert snapshot(made) == snapshot(tmp_path / "raw")


def test_import_reports_what_it_did_and_skips_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "loops.npz"
    np.savez(source, edge_index=np.array([[0, 1, 1, 2], [1, 1, 2, 0]]), x=np.ones((3, 2), np.float32))
    argv = ["import", str(source), "--out", str(tmp_path / "g.gs"), "--undirected", "--self-loops", "drop"]
    first, second = answer(argv, capsys), answer(argv, capsys)
    counts = first["edges"]["node__to__node"]
    assert (counts["edges_read"], counts["self_loops_dropped"]) == (4, 1)
    assert (first["skipped"], second["skipped"]) == (False, True)
    assert first["fingerprint"] == second["fingerprint"]


def test_train_answers_metrics_and_the_cost_of_every_stage(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = answer(["train", str(write_run(tmp_path, store=store))], capsys)
    assert 0.3 < result["test"]["accuracy"] <= 1
    assert result["val"]
    assert len(result["epoch_s"]) == 2
    assert {"sample", "pack", "train", "evaluate"} <= set(result["stages"])
    for stage in result["stages"].values():
        assert stage["seconds"] > 0
        assert stage["peak_rss_bytes"] > 0
        assert stage["useful_bytes"] > 0
    # What the producer of the windows writes meanwhile is its own. Again, since a first training may compile kernels.
    result = answer(["train", str(tmp_path / "run.yaml"), "--overwrite"], capsys)
    assert result["stages"]["train"]["device_bytes_written"] < result["stages"]["pack"]["device_bytes_written"]
    for epoch in result["io"]["epochs"]:
        assert sum(epoch["share"].values()) == pytest.approx(1)
    sealed = open_sealed_json(tmp_path / "run" / "result.json")
    assert sealed["test"] == result["test"]
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["memory"] == 256 << 20


def test_plan_predicts_every_mode_and_touches_nothing(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path, store=store, pack={"mode": "auto"})
    found = answer(["plan", str(run)], capsys)
    assert {mode["mode"] for mode in found["modes"]} == {"memory", "packed", "cached", "direct"}
    assert [mode["mode"] for mode in found["modes"] if mode["chosen"]] == [found["mode"]]
    assert {"sample", "pack", "train", "evaluate", "embed"} <= set(found["stages"])
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_train_shows_what_was_predicted_beside_what_was_measured(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = answer(["train", str(job / "run.yaml")], capsys)["predicted"]
    assert [row["stage"] for row in rows] == ["sample", "pack", "train", "evaluate"]
    assert all(predicted >= 0 and measured > 0 for row in rows for predicted, measured in [row["seconds"]])
    assert main(["train", str(job / "run.yaml"), "--quiet"]) == 0
    assert "Predicted beside measured" in capsys.readouterr().out


def test_training_again_skips_everything_and_answers_the_same(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = open_sealed_json(job / "run" / "result.json")
    again = answer(["train", str(job / "run.yaml")], capsys)
    assert again["skipped"]
    assert again["test"] == before["test"]
    assert again["epoch_s"] == before["epoch_s"]
    assert again["stages"]["train"]["skipped"]
    assert again["stages"]["train"]["seconds"] == before["stages"]["train"]["seconds"]


def test_overwrite_trains_anew_with_other_settings(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(write_run(tmp_path, store=store))
    answer(["train", run], capsys)
    other = answer(["train", run, "--set", "trainer.epochs=1", "--set", "model.hidden=4", "--overwrite"], capsys)
    assert len(other["epoch_s"]) == 1
    assert not other["skipped"]


@pytest.mark.parametrize("samples", ["fresh", "frozen"])
def test_sampling_and_packing_ahead_leaves_windows_that_training_finds(
    samples: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(write_run(tmp_path, store=store, sampler={"samples": samples}))
    sampled = answer(["sample", run], capsys)
    assert not sampled["stages"]["sample"]["skipped"]
    assert sorted({path.suffix for path in (tmp_path / "run" / "windows").rglob("window-*")}) == [".sample"]
    packed = answer(["pack", run], capsys)
    assert packed["stages"]["sample"]["skipped"]
    assert packed["windows"]["train"]["mode"] == "packed"
    assert sorted({path.suffix for path in (tmp_path / "run" / "windows").rglob("window-*")}) == [".pack"]
    ahead = answer(["train", run], capsys)
    whole = answer(["train", run, "--set", f"out={tmp_path / 'whole'}"], capsys)
    assert ahead["test"] == whole["test"]


def test_evaluate_agrees_with_what_train_answered(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = open_sealed_json(job / "run" / "result.json")
    found = answer(["evaluate", str(job / "run.yaml")], capsys)
    assert found["test"] == trained["test"]


def test_look_up_answers_vectors_and_neighbours_by_external_id(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = str(job / "run" / "embeddings.gs")
    found = answer(["lookup", table, "--id", "7", "--id", "11", "--k", "3"], capsys)
    assert [item["id"] for item in found["answers"]] == ["7", "11"]
    for item in found["answers"]:
        assert len(item["vector"]) == found["dim"]
        assert len(item["neighbours"]["ids"]) == 3
        assert int(item["id"]) not in item["neighbours"]["ids"]
        assert item["neighbours"]["scores"] == sorted(item["neighbours"]["scores"], reverse=True)


def test_an_exported_table_holds_what_look_up_answers(
    job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(job / "run" / "embeddings.gs")
    vector = answer(["lookup", table, "--id", "7"], capsys)["answers"][0]["vector"]
    answer(["export", table, "--to", "parquet", "--out", str(tmp_path / "t.parquet")], capsys)
    answer(["export", table, "--to", "npy", "--out", str(tmp_path / "t.npy")], capsys)
    row = pq.read_table(tmp_path / "t.parquet").slice(7, 1).to_pylist()[0]
    assert row["id"] == 7
    assert row["embedding"] == pytest.approx(vector)
    assert np.load(tmp_path / "t.npy")[7] == pytest.approx(vector)


def test_verify_reads_a_whole_run(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(["verify", str(job)], capsys)
    assert found["ok"]
    kinds = {item["kind"] for item in found["artefacts"]}
    assert kinds >= {"store", "checkpoint", "window", "inference", "embedding_table", "result", "run_file"}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("graph.gs", "store"),
        ("run/windows/val/window-0000.pack", "window"),
        ("run/embeddings.gs", "embedding_table"),
        ("run/inference/layer-1", "inference"),
        ("run/config.yaml", "run_file"),
    ],
)
def test_inspect_says_what_an_artefact_is(path: str, kind: str, job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["inspect", str(job / path)], capsys)["kind"] == kind
    assert main(["inspect", str(job / path)]) == 0
    assert kind.replace("_", " ") in capsys.readouterr().out.replace("_", " ")


def test_people_see_tables(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["train", "run.yaml"], ["evaluate", "run.yaml"], ["embed", "run.yaml"], ["inspect", ""]):
        assert main([argv[0], str(job / argv[1])]) == 0
        out = capsys.readouterr().out
        assert "\n" in out
        assert "{" not in out


def test_an_interrupted_command_ends_with_130_and_leaves_nothing(tmp_path: Path) -> None:
    argv = ["generate", "--nodes=3000000", "--edges=30000000", "--features=64", "--out", str(tmp_path / "raw")]
    process = subprocess.Popen([sys.executable, "-m", "graphsys.cli", *argv], stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.02)
    while process.poll() is None:  # Python drops one that arrives while it frees an object; people press again
        os.kill(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in message
    assert list(tmp_path.iterdir()) == []


def test_a_process_answers_one_json_line_and_keeps_progress_on_standard_error(tmp_path: Path) -> None:
    argv = ["generate", "--nodes=50", "--edges=100", "--out", str(tmp_path / "raw"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "graphsys.cli", *argv], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout)["nodes"] == 50
