"""Deep networks on the whole graph, from the command line: plan, train, evaluate, embed, report; what is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.cli_runs import answer
from helpers.pipelines import pipeline_run, pipeline_store
from helpers.refusals import assert_refused

from graphsys.cli.main import main
from graphsys.core.config import RunConfig
from graphsys.storage.manifest import open_sealed_json
from graphsys.storage.store import Store
from graphsys.storage.verify import verify
from graphsys.trainers.checkpoint import final_checkpoint, load_checkpoint
from graphsys.trainers.pipeline.traffic import graph_parallel_nbytes, pipeline_nbytes, reduce_nbytes

NODES, HIDDEN, LAYERS = 120, 8, 4
LIMIT_S = 240
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline_store(tmp_path_factory.mktemp("store"), num_nodes=NODES)


def write_run(path: Path, store: Path, **sections: Any) -> tuple[Path, RunConfig]:
    run = pipeline_run(store, path.with_suffix(""), **sections)
    path.write_text(yaml.safe_dump(run.resolved()))
    return path, run


def trained_apart(path: Path) -> tuple[dict[str, Any], str]:
    """Train in a program of its own, in which Ray may warn; return the result, and what people are told."""
    done = subprocess.run(
        [sys.executable, "-m", "graphsys.cli", "train", str(path), "--json"],
        capture_output=True,
        text=True,
        cwd=path.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result, done.stderr


def rows(result: dict[str, Any]) -> dict[str, list[float]]:
    return {row["what"]: [row["predicted"], row["measured"]] for row in result["pipeline"]["rows"]}


def test_a_run_in_process_is_trained_evaluated_embedded_and_reported(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = write_run(tmp_path / "alone.yaml", store, cluster={"chunks": 4})
    result = answer(["train", str(path), "--quiet"], capsys)
    assert result["mode"] == "single"
    assert result["pipeline"]["cut"] == [0, LAYERS]
    assert rows(result)["sent between stages"] == [0, 0]
    assert all(value > 0 for value in rows(result)["epoch"])
    assert result["stages"]["train"]["details"]["processes"][0]["peak_rss_bytes"] > 0
    assert answer(["train", str(path), "--quiet"], capsys)["pipeline"] == result["pipeline"]
    other = answer(["train", str(path), "--quiet", "--set", "cluster.chunks=6"], capsys)  # it is finished all the same
    assert "bubble, in slots" not in rows(other)
    evaluated = answer(["evaluate", str(path), "--quiet"], capsys)
    assert {split: evaluated[split] for split in SPLITS} == {split: result[split] for split in SPLITS}
    embedded = answer(["embed", str(path), "--quiet"], capsys)
    assert (embedded["num_rows"], embedded["layer"]) == (NODES, LAYERS)
    assert main(["report", str(run.out)]) == 0
    assert "trained for 6 epochs, and evaluated exactly" in capsys.readouterr().out
    page = (run.out / "report.html").read_text()
    assert "Validation metrics" in page
    assert "Processes in the last epoch" in page
    assert "sent between stages" in page
    kinds = {artefact.path.name for artefact in verify(run.out).artefacts}
    assert {"cut.json", "plan.json", "result.json"} <= kinds


def test_people_see_what_was_predicted_beside_what_was_measured(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = write_run(tmp_path / "shown.yaml", store)
    assert main(["train", str(path), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "Predicted beside measured, 1 x 1 (stages x ways), per epoch" in shown
    assert "bubble, in slots" in shown
    assert "memory of stage 0" in shown


def test_two_stages_under_ray_one_of_which_is_killed_end_as_one_process_does_and_send_what_was_foretold(
    store: Path, tmp_path: Path
) -> None:
    # Of eight chunks in each of six epochs: in the middle of the fourth, which no checkpoint holds.
    kwargs = {"moment": 3 * 8 + 4, "marker": str(tmp_path / "died")}
    sections = {"model": {"class": "helpers.dying:DyingGCNII", "kwargs": kwargs}, "trainer": {"checkpoint_every": 2}}
    path, run = write_run(tmp_path / "two.yaml", store, cluster={"stages": 2}, **sections)
    result, said = trained_apart(path)
    assert (tmp_path / "died").exists()
    assert "a worker was lost; start 2, from the newest checkpoint" in said
    assert "going on from epoch 2 of 6" in said
    assert result["mode"] == "pipeline"
    assert (result["epochs"], len(result["epoch_s"])) == (6, 6)
    found = rows(result)
    sent = pipeline_nbytes(NODES, 2, 2 * HIDDEN)  # the rows, and GCNII's shared ones
    assert found["sent between stages"] == [sent, sent]
    assert found["sent between ways"] == [0, 0]
    assert all(0 < share < 1 for share in found["bubble, in slots"])
    assert all(value > 0 for stage in range(2) for value in found[f"memory of stage {stage}"])
    assert result["pipeline"]["cut"] == open_sealed_json(run.out / "cut.json")["bounds"]
    alone, single = write_run(tmp_path / "one.yaml", store, cluster={"chunks": 8}, **sections)
    assert main(["train", str(alone), "--quiet"]) == 0
    one, two = (load_checkpoint(final_checkpoint(each.out)) for each in (single, run))
    assert all(weight.equal(two.weights[name]) for name, weight in one.weights.items())
    checksums = [[spec.checksums for spec in each.manifest.arrays.values()] for each in (one, two)]
    assert checksums[0] == checksums[1]  # of the snapshot


def test_a_plan_tries_every_way_count_and_says_which_to_take_and_why(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = write_run(tmp_path / "plan.yaml", store, cluster={"stages": 2, "ways": 2})
    plan = answer(["plan", str(path), "--quiet"], capsys)
    assert not run.out.exists()
    by_ways = {one["ways"]: one for one in plan["strategies"]}
    assert {ways: (one["name"], one["stages"], one["chunks"]) for ways, one in by_ways.items()} == {
        1: ("pipeline", 4, 16),
        2: ("hybrid", 2, 16),
        4: ("graph parallel", 1, 4),
    }
    assert by_ways[1]["bytes"]["boundary"] == pipeline_nbytes(NODES, 4, 2 * HIDDEN)
    assert by_ways[2]["bytes"]["boundary"] == pipeline_nbytes(NODES, 2, 2 * HIDDEN)
    assert by_ways[4]["bytes"]["exchange"] % graph_parallel_nbytes(1, [HIDDEN] * LAYERS) == 0
    weights = 6 * HIDDEN + HIDDEN + LAYERS * HIDDEN * HIDDEN + HIDDEN * 3 + 3
    assert by_ways[4]["bytes"]["reduce"] == reduce_nbytes(weights, 4)
    assert by_ways[1]["slots"]["bubble_slots"] == 3 / 19
    assert [len(by_ways[ways]["memory"]) for ways in (1, 2, 4)] == [4, 2, 1]
    assert by_ways[1]["cut"] == [0, 1, 2, 3, 4]
    assert (plan["run"]["stages"], plan["run"]["ways"], plan["workers"]) == (2, 2, 4)
    assert plan["recommended"]["stages"] * plan["recommended"]["ways"] == 4
    assert plan["reason"].startswith("fastest, ")
    assert plan["split_bytes"] > 100 * Store.open(store).edge_types[("node", "to", "node")]["num_edges"]
    assert main(["plan", str(path), "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "hybrid (the run's" in shown
    assert "Stages of 2 x 2: bytes per process" in shown
    assert "Before training, METIS takes about" in shown
    assert "(stages x ways): fastest, " in shown


def test_a_shape_that_cannot_be_is_left_out_of_the_plan_with_its_reason(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = write_run(tmp_path / "few.yaml", store, cluster={"ways": 8})
    plan = answer(["plan", str(path), "--quiet"], capsys)
    assert plan["left_out"] == {"1": "8 stages are more than the 4 layers"}
    assert [one["ways"] for one in plan["strategies"]] == [2, 4, 8]


@pytest.mark.parametrize(
    ("command", "sections", "names"),
    [
        (
            "train",
            {"cluster": {"stages": 4, "ways": 120, "chunks": 120}},
            ("stages is 4", "120", "480", "in all"),
        ),
        ("train", {"cluster": {"chunks": 121}}, ("METIS", "121", "120", "cluster.chunks")),
        ("train", {"cluster": {"stages": 2, "chunks": 121}}, ("METIS", "121", "120", "cluster.chunks")),
        ("plan", {"cluster": {"chunks": 121}}, ("METIS", "121", "120", "cluster.chunks")),
        ("sample", {}, ("trainer.strategy", "pipeline", "graphsys train")),
        ("pack", {}, ("trainer.strategy", "pipeline", "graphsys train")),
        ("evaluate", {}, ("new", "graphsys train")),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    sections: dict[str, Any],
    names: tuple[str, ...],
) -> None:
    path, run = write_run(tmp_path / "new.yaml", store, **sections)
    assert_refused([command, str(path), "--quiet"], names=names, work=tmp_path, capsys=capsys)
    assert not run.out.exists()


def test_more_stages_than_layers_are_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = write_run(tmp_path / "stages.yaml", store)
    names = ("cluster.stages is 5", "model.num_layers is 4")
    assert_refused(["train", str(path), "--set", "cluster.stages=5"], names=names, work=tmp_path, capsys=capsys)


def test_a_checkpoint_of_another_model_is_refused_by_name(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = write_run(tmp_path / "other.yaml", store)
    assert main(["train", str(path), "--quiet"]) == 0
    change = ["--set", "model.name=resgcn"]
    for command in ("train", "evaluate", "embed"):
        assert_refused([command, str(path), *change], names=("gcnii", "resgcn"), work=tmp_path, capsys=capsys)


@pytest.mark.parametrize("ways", [1, 2])
def test_a_graph_without_training_nodes_is_refused_before_anything_is_started_or_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ways: int
) -> None:
    path, _ = write_run(tmp_path / "new.yaml", pipeline_store(tmp_path, splits=(2, 2, 3)), cluster={"ways": ways})
    assert_refused(["train", str(path)], names=("in the train split",), work=tmp_path, capsys=capsys)


def test_a_cluster_that_cannot_be_reached_costs_no_earlier_training(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = write_run(tmp_path / "kept.yaml", store)
    assert main(["train", str(path), "--quiet"]) == 0
    away = ["train", str(path), "--overwrite", "--set", "cluster.address=127.0.0.1:9"]
    assert_refused(away, names=("cluster.address 127.0.0.1:9 does not answer",), work=tmp_path, capsys=capsys)
