"""A disk that fills up, and disk calls that fail, in the middle of a training."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.graphs import tiny_store
from helpers.mounts import mounted_tmpfs, remount
from helpers.training import run_config

from graphsys.core.errors import DiskError
from graphsys.core.units import KIB
from graphsys.trainers.checkpoint import list_checkpoints
from graphsys.trainers.fit import fit


def state_bytes(out: Path) -> bytes:
    return (list_checkpoints(out / "checkpoints")[-1] / "state.pt").read_bytes()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("size", [8, 40, 80, 120, 160, 200])
def test_a_training_that_filled_the_disk_says_so_and_goes_on_when_there_is_room(
    store: Path, tmp_path: Path, size: int
) -> None:
    sections: dict[str, Any] = {
        "trainer": {"epochs": 3, "checkpoint_every": 2, "threads": 1, "device": "cpu"},
        "pack": {"mode": "packed", "window": 6},
    }
    fit(run_config(store, tmp_path / "whole", **sections))
    with mounted_tmpfs(tmp_path / "small", f"size={size * KIB}") as folder:
        run = run_config(store, folder / "out", **sections)
        with pytest.raises(DiskError, match="the disk is full"):
            fit(run)
        remount(folder, "size=64m")
        fit(run)
        assert state_bytes(run.out) == state_bytes(tmp_path / "whole")


@pytest.mark.parametrize("name", ["fsync", "replace", "rename", "mkdir"])
@pytest.mark.parametrize("after", [0, 3, 9, 20, 31])
def test_a_disk_call_that_fails_once_leaves_a_run_that_goes_on(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int
) -> None:
    run = run_config(store, tmp_path / "out", trainer={"epochs": 2, "checkpoint_every": 3, "threads": 1})
    real: Callable[..., Any] = getattr(os, name)
    left = [after]

    def failing(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] == -1:
            raise OSError(errno.EIO, "Input/output error")
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing)
        message = "the training makes fewer such calls"
        try:
            fit(run)
        except DiskError as error:
            message = str(error)
    assert ("check the disk" in message) == (left[0] < 0)
    fit(run)
    fit(run_config(store, tmp_path / "whole", trainer={"epochs": 2, "checkpoint_every": 3, "threads": 1}))
    assert state_bytes(run.out) == state_bytes(tmp_path / "whole")
