"""Files written page by page past the page cache."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.mounts import mounted_tmpfs

from graphsys.core.errors import DiskError
from graphsys.storage.direct import PAGE, Bytes, aligned_empty
from graphsys.storage.direct_output import DirectOutput

MIB = 1 << 20


def _output(folder: Path) -> DirectOutput:
    return DirectOutput(folder / ".out.partial", folder / "out", flush_bytes=MIB)


def _bytes(nbytes: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, nbytes).astype(np.uint8)


@pytest.mark.parametrize("sizes", [[PAGE], [1, PAGE - 1], [3 * MIB - 5, 5], [100, MIB, PAGE - 100], [0, PAGE, 0]])
def test_parts_follow_each_other_whatever_their_sizes(tmp_path: Path, sizes: list[int]) -> None:
    parts = [_bytes(size, seed) for seed, size in enumerate(sizes)]
    out = _output(tmp_path)
    out.write(2 * PAGE, *parts)
    out.sync()
    out.close()
    content = (tmp_path / ".out.partial").read_bytes()
    assert content == bytes(2 * PAGE) + b"".join(part.tobytes() for part in parts)


def test_pages_that_are_aligned_in_memory_are_written_from_where_they_are(tmp_path: Path) -> None:
    pages = aligned_empty(2 * PAGE)
    pages[:] = _bytes(2 * PAGE)
    out = _output(tmp_path)
    out.write(0, pages)
    out.close()
    assert (tmp_path / ".out.partial").read_bytes() == pages.tobytes()


def test_reserved_room_is_zero_until_it_is_written(tmp_path: Path) -> None:
    out = _output(tmp_path)
    out.reserve(0, 3 * PAGE)
    out.write(PAGE, _bytes(PAGE))
    out.close()
    assert (tmp_path / ".out.partial").read_bytes() == bytes(PAGE) + _bytes(PAGE).tobytes() + bytes(PAGE)


def test_a_full_disk_is_met_by_reserving_and_by_writing(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "small", "size=64k") as folder:
        out = _output(folder)
        with pytest.raises(DiskError, match=r"cannot write .*small/out: the disk is full"):
            out.reserve(0, MIB)
        with pytest.raises(DiskError, match="the disk is full"):
            out.write(0, _bytes(MIB))
        out.close()


def test_closing_twice_is_fine(tmp_path: Path) -> None:
    out = _output(tmp_path)
    assert not out.closed
    out.close()
    out.close()
    assert out.closed


def test_a_folder_that_may_not_be_written_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="a part of the path is a file"):
        _output(tmp_path / "file" / "below")
    assert os.listdir(tmp_path) == ["file"]
