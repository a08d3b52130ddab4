import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from helpers.mounts import mounted_tmpfs
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.errors import DiskError
from graphsys.storage.direct_writer import DirectWriter
from graphsys.storage.flat import FlatWriter, write_array

CONTENT = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)


@pytest.mark.parametrize("buffer_bytes", [1, 4096, 10_000, 1 << 20])
@pytest.mark.parametrize("step", [1000, 4096, 65_000])
def test_the_file_holds_what_was_written(tmp_path: Path, buffer_bytes: int, step: int) -> None:
    writer = DirectWriter(tmp_path / "deep" / "a", buffer_bytes=buffer_bytes)
    for start in range(0, CONTENT.nbytes, step):
        writer.write(CONTENT[start : start + step])
    writer.write(b"end")
    writer.close()
    assert (tmp_path / "deep" / "a").read_bytes() == CONTENT.tobytes() + b"end"
    assert writer.nbytes == CONTENT.nbytes + 3


def test_whole_pages_end_where_they_end(tmp_path: Path) -> None:
    writer = DirectWriter(tmp_path / "a", buffer_bytes=8192)
    writer.write(CONTENT[:16_384])
    writer.close()
    assert (tmp_path / "a").read_bytes() == CONTENT[:16_384].tobytes()


def test_an_older_file_of_that_name_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT.tobytes())
    writer = DirectWriter(tmp_path / "a")
    writer.write(b"new")
    writer.close()
    assert (tmp_path / "a").read_bytes() == b"new"


def test_an_aborted_file_can_be_written_again(tmp_path: Path) -> None:
    writer = DirectWriter(tmp_path / "a", buffer_bytes=4096)
    writer.write(CONTENT)
    writer.abort()
    again = DirectWriter(tmp_path / "a")
    again.close()
    assert (tmp_path / "a").read_bytes() == b""


def test_a_full_disk_is_told_by_name(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "small", "size=64k") as place:
        writer = DirectWriter(place / "a", buffer_bytes=4096)
        with pytest.raises(DiskError, match=r"cannot write .*small/a: the disk is full"):
            writer.write(CONTENT)
        writer.abort()


def write_and_close(writer: DirectWriter, nbytes: int) -> None:
    writer.write(bytes(nbytes))
    writer.close()


@pytest.mark.parametrize("nbytes", [1000, 3 << 20])
def test_a_failing_disk_is_told_at_the_latest_when_the_file_is_closed(
    nbytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = DirectWriter(tmp_path / "file")
    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(DiskError, match=r"cannot write .*file: the disk is full"):
        write_and_close(writer, nbytes)
    writer.abort()


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.sampled_from([0, 1, 100, 4095, 4096, 4097, 300_000, 512 << 10, 1_500_000]), max_size=8))
def test_a_file_holds_the_bytes_in_order(sizes: list[int]) -> None:
    pieces = [np.random.default_rng(place).integers(0, 256, size, np.uint8) for place, size in enumerate(sizes)]
    with TemporaryDirectory() as folder:
        writer = DirectWriter(Path(folder) / "new/file")
        for piece in pieces:
            writer.write(piece if piece.nbytes % 2 else piece.tobytes())
        assert writer.nbytes == sum(sizes)
        writer.close()
        assert (Path(folder) / "new/file").read_bytes() == b"".join(piece.tobytes() for piece in pieces)


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (9000, 33)])
def test_a_flat_array_does_not_depend_on_the_buffer(tmp_path: Path, shape: tuple[int, int]) -> None:
    rows = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    plain = write_array(tmp_path / "plain", rows)
    writer = FlatWriter(tmp_path / "small", np.float32, (shape[1],), buffer_bytes=10_000)
    for start in range(0, shape[0], 700):
        writer.append(rows[start : start + 700])
    assert writer.close() == plain
    files = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
             for folder in (tmp_path / "plain", tmp_path / "small")]  # fmt: skip
    assert files[0] == files[1]
