"""Folders for measurements leave nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from graphsys.trainers.scratch import scratch_folder


def _fail(near: Path) -> None:
    with scratch_folder(near) as scratch:
        (scratch / "file").write_text("x")
        raise KeyError


def test_the_folder_is_gone_with_all_it_held_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        _fail(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_lies_in_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "runs" / "one") as scratch:
        assert scratch.parent == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_uses_is_not(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from graphsys.trainers.scratch import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=120)
    assert killed.returncode == -9
    (left,) = tmp_path.iterdir()
    (tmp_path / "run").mkdir()
    with scratch_folder(tmp_path) as used, scratch_folder(tmp_path / "run") as other:  # the run's folder exists by now
        assert f"-{os.getpid()}-" in used.name
        assert not left.exists()
        assert used.exists()
        assert other.parent == tmp_path / "run"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
