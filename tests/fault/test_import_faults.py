"""An import that is stopped half-way leaves nothing, and a second one works."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import MEMORY
from helpers.import_job import NUM_NODES, run_import
from helpers.mounts import mounted_tmpfs, remount

from graphsys.core.errors import DiskError
from graphsys.storage.files import partial_path
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import homogeneous
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec
from graphsys.storage.store import Store

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    """Fingerprint of the store, and the seconds that making it takes."""
    folder = tmp_path_factory.mktemp("reference")
    run_import(folder / "warm.gs")
    started = time.perf_counter()
    return run_import(folder / "out.gs"), time.perf_counter() - started


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.85])
def test_a_killed_import_leaves_no_store_and_can_be_run_again(
    share: float, reference: tuple[str, float], tmp_path: Path
) -> None:
    fingerprint, seconds = reference
    out = tmp_path / "out.gs"
    job = subprocess.Popen([sys.executable, "-m", "helpers.import_job", str(out)], cwd=TESTS)
    while not partial_path(out).exists() and job.poll() is None:
        time.sleep(0.001)
    time.sleep(share * seconds)
    job.kill()
    job.wait()
    if out.exists():  # it was done already
        assert Store.open(out).fingerprint == fingerprint
    assert run_import(out) == fingerprint
    assert os.listdir(tmp_path) == ["out.gs"]


@pytest.mark.parametrize("megabytes", [3, 12, 40])
def test_a_full_disk_is_told_in_one_sentence_and_nothing_is_left(megabytes: int, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "disk", f"size={megabytes}m") as disk:
        with pytest.raises(DiskError, match=r"cannot write .*: the disk is full; free some space") as caught:
            run_import(disk / "out.gs")
        assert "\n" not in str(caught.value)
        assert os.listdir(disk) == []
        remount(disk, "size=200m")
        run_import(disk / "out.gs")
        assert Store.open(disk / "out.gs").node_type().num_nodes == NUM_NODES


def test_a_read_only_disk_is_told_in_one_sentence(tmp_path: Path) -> None:
    with (
        mounted_tmpfs(tmp_path / "disk", "ro") as disk,
        pytest.raises(DiskError, match="the file system is read-only; choose another folder"),
    ):
        run_import(disk / "out.gs")


@pytest.mark.parametrize("name", ["fsync", "rename", "mkdir", "fdatasync"])
@pytest.mark.parametrize("after", [0, 2, 5])
def test_a_failing_disk_call_leaves_no_store(
    name: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = getattr(os, name), 0

    def failing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == after + 1:
            raise OSError(errno.EIO, "Input/output error")
        return real(*args, **kwargs)

    edges = np.array([[0, 1], [1, 0]])
    monkeypatch.setattr(os, name, failing)
    message = "written"
    try:
        import_graph(homogeneous(edges, num_nodes=2), tmp_path / "out.gs", ImportOptions(memory=MEMORY))
    except DiskError as error:
        message = str(error)
    if calls <= after:
        assert message == "written"
    else:
        assert "input/output error" in message
    assert {path.name for path in tmp_path.iterdir()} <= {"out.gs"}


def test_an_unreadable_file_is_told_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "graph.npz"
    np.savez(path, edge_index=np.zeros((2, 3), int))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(DiskError, match=r"cannot read .*graph\.npz: permission denied"):
        open_source(path, SourceSpec())
