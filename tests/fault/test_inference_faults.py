"""Inference, embedding and export: killed or out of disk, they leave what was finished and nothing half-written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.mounts import mounted_tmpfs
from helpers.tables import make_table
from helpers.trained import make_run, train_nothing

from graphsys.core.config import RunConfig
from graphsys.core.errors import DiskError
from graphsys.trainers.embed import embed
from graphsys.trainers.inference import layer_folder
from graphsys.trainers.run_folder import RunFolder

KILLED_AT = """
import os, signal, sys
from pathlib import Path
from graphsys.core.config import load_run
from graphsys.core.progress import SilentProgress
from graphsys.trainers.embed import embed

class Bar:
    def __init__(self, deadly): self.deadly = deadly
    def note(self, text): pass
    def advance(self, amount=1):
        if self.deadly: os.kill(os.getpid(), signal.SIGKILL)

class Progress(SilentProgress):
    def start(self, title, total, unit): return Bar(title == sys.argv[2])

embed(load_run(Path(sys.argv[1])), None, Progress())
"""


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def embed_and_be_killed(run: RunConfig, folder: Path, title: str) -> None:
    """Embed in a process of its own that kills itself in the midst of the task called ``title``."""
    run_file = folder / "run.yaml"
    run_file.write_text(run.model_dump_json(by_alias=True))  # JSON is YAML
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(run_file), title],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("title", "finished"),
    [("infer layer 1", []), ("infer layer 2", [1]), ("write embeddings", [1, 2])],
)
def test_a_killed_embedding_goes_on_at_its_layer_and_ends_with_the_same_bytes(
    tmp_path: Path, title: str, finished: list[int]
) -> None:
    store = tiny_store(tmp_path)
    whole, killed = (make_run(store, tmp_path / name, memory="1MiB") for name in ("whole", "killed"))
    for run in (whole, killed):
        train_nothing(run)
    embed_and_be_killed(killed, tmp_path, title)
    folder = RunFolder(killed.out).inference
    assert [number for number in (1, 2) if layer_folder(folder, number).exists()] == finished
    assert not RunFolder(killed.out).embeddings.exists()
    report = embed(killed).report
    made = [int(name.removeprefix("layer-")) for name in report.details["inference"]["details"]]
    assert made == [number for number in (1, 2) if number not in finished]
    embed(whole)
    assert files_of(RunFolder(killed.out).embeddings) == files_of(RunFolder(whole.out).embeddings)
    assert files_of(folder) == files_of(RunFolder(whole.out).inference)


def test_a_full_disk_during_inference_is_told_and_leaves_no_layer(tmp_path: Path) -> None:
    store = tiny_store(tmp_path, num_nodes=2000, num_edges=4000)
    with mounted_tmpfs(tmp_path / "small", "size=1m") as place:
        run = make_run(store, place / "run")
        train_nothing(run)
        with pytest.raises(DiskError, match="the disk is full"):
            embed(run)
        assert not RunFolder(run.out).inference.exists()
        assert not list(place.rglob("*.partial"))


@pytest.mark.parametrize("name", ["out.parquet", "out.npy"])
def test_a_full_disk_during_export_is_told_and_leaves_no_file(tmp_path: Path, name: str) -> None:
    vectors = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)
    table = make_table(tmp_path, vectors, block=1000)
    with mounted_tmpfs(tmp_path / "small", "size=256k") as place:
        export = table.export_parquet if name.endswith("parquet") else table.export_npy
        with pytest.raises(DiskError, match=f"cannot write .*{name}: the disk is full"):
            export(place / name)
        assert list(place.iterdir()) == []
