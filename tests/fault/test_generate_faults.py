"""A generation that is killed or meets a full disk leaves nothing, and the next one writes the same bytes."""

import multiprocessing
import time
from pathlib import Path

import pytest
from helpers.mounts import mounted_tmpfs

from graphsys.core.errors import DiskError
from graphsys.storage.community_graph import GenerateSpec
from graphsys.storage.files import partial_path
from graphsys.storage.generate import generate

SPEC = GenerateSpec(nodes=100_000, edges=8_400_000, features=32, classes=4, seed=1)  # 147 MB, of them 134 in edges


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_killed_generation_is_repeated_with_the_same_bytes(tmp_path: Path) -> None:
    generate(tmp_path / "whole", SPEC)
    out = tmp_path / "killed"
    process = multiprocessing.get_context("spawn").Process(target=generate, args=(out, SPEC))
    process.start()
    # Killed in the middle: the first part of the edges is there, and something is still to come.
    while not (partial_path(out) / "edges" / "part-00001.parquet").exists():
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert not out.exists()
    assert partial_path(out).exists()
    generate(out, SPEC)
    assert files(out) == files(tmp_path / "whole")
    assert not partial_path(out).exists()


@pytest.mark.parametrize("megabytes", [1, 80, 140])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, megabytes: int) -> None:
    # Full within the first part, within the last one, and within the arrays.
    with mounted_tmpfs(tmp_path / "disk", f"size={megabytes}m") as disk:
        with pytest.raises(DiskError, match="the disk is full; free some space"):
            generate(disk / "raw", SPEC)
        assert list(disk.iterdir()) == []
