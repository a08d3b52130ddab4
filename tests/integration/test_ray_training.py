"""Training under Ray, from the command line: on a cluster of its own, and on one that runs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.gang import Gang
from helpers.graphs import tiny_store

from graphsys.cli.main import main
from graphsys.core.config import RunConfig, parse_run
from graphsys.samplers.schedule import Schedule
from graphsys.storage.store import Store
from graphsys.trainers.budget import train_schedule
from graphsys.trainers.checkpoint import final_checkpoint

LIMIT_S = 240


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def gang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    with closing(Gang(tmp_path_factory.mktemp("gang"))) as started:
        yield started


def write_run(path: Path, store: Path, **sections: Any) -> tuple[Path, RunConfig]:
    tree: dict[str, Any] = {
        "store": str(store),
        "out": str(path.with_suffix("")),
        "memory": "64MiB",
        "sampler": {"fanouts": [3, 2], "batch_size": 16},
        "model": {"hidden": 8},
        "trainer": {"epochs": 2, "threads": 1, "device": "cpu"},
        "cluster": {"num_workers": 2, "timeout": 60},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    path.write_text(yaml.safe_dump(tree))
    return path, parse_run(tree)


def graphsys(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "graphsys.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=LIMIT_S,
        check=False,
    )


def schedule_of(run: RunConfig) -> Schedule:
    return train_schedule(run, Store.open(run.store).split("node", "train"))


def state_bytes(run: RunConfig) -> bytes:
    return (final_checkpoint(run.out) / "state.pt").read_bytes()


def test_workers_killed_in_the_middle_of_an_epoch_are_replaced_and_the_weights_end_the_same(
    store: Path, gang: Gang, tmp_path: Path
) -> None:
    def described(name: str, moments: list[int]) -> tuple[Path, RunConfig]:
        kwargs = {"folder": str(tmp_path), "moments": moments}
        model = {"class": "helpers.dying:Dying", "kwargs": kwargs}
        trainer = {"epochs": 2, "checkpoint_every": 3}
        return write_run(tmp_path / f"{name}.yaml", store, model=model, trainer=trainer)

    _, whole = described("whole", [])
    assert gang.train(whole, 2) == [0, 0]
    schedule = schedule_of(whole)
    # Worker 1 in the second step, before there is a checkpoint, and the leader in the second epoch, behind one.
    moments = [int(schedule.seeds(position).node[0]) for position in (3, 7 + 2)]
    path, killed = described("killed", moments)
    done = graphsys("train", str(path), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in tmp_path.glob("died-*")} == {f"died-{seed}" for seed in moments}
    assert state_bytes(killed) == state_bytes(whole)
    result = json.loads(done.stdout)
    assert result["epochs"] == 2
    assert set(result["test"]) == {"loss", "accuracy", "macro_f1"}
    assert result["stages"]["train"]["seconds"] > 0
    assert "going on from batch 6 of 14" in done.stderr
    assert "epoch 2: loss" in done.stderr
    assert not (killed.out / "cluster").exists()


def test_more_workers_than_cpus_are_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cpus = len(os.sched_getaffinity(0))
    path, run = write_run(tmp_path / "run.yaml", store, cluster={"num_workers": 7, "threads": cpus})
    assert main(["train", str(path), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"cluster.num_workers is 7, each with {cpus} CPU" in said
    assert f"this machine has {cpus} in all" in said
    assert not run.out.exists()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:9", "does not answer (Connection refused)"),
        ("ray://127.0.0.1:9", "does not answer (Connection refused)"),
        ("head", "names no host and port"),
        ("head:x", "names no host and port"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, why: str
) -> None:
    path, _ = write_run(tmp_path / "run.yaml", store, cluster={"address": address})
    assert main(["train", str(path), "--quiet"]) == 2
    assert why in capsys.readouterr().err
