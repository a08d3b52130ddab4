from pathlib import Path

import numpy as np
import pytest
from helpers.mounts import mounted_tmpfs

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


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (9000, 33)])
def test_a_flat_array_written_directly_has_the_same_bytes(tmp_path: Path, shape: tuple[int, int]) -> None:
    rows = np.arange(shape[0] * shape[1], dtype=np.float32).reshape(shape)
    plain = write_array(tmp_path / "plain", rows)
    writer = FlatWriter(tmp_path / "direct", np.float32, (shape[1],), direct_buffer=10_000)
    for start in range(0, shape[0], 700):
        writer.append(rows[start : start + 700])
    assert writer.close() == plain
    files = [{path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
             for folder in (tmp_path / "plain", tmp_path / "direct")]  # fmt: skip
    assert files[0] == files[1]
