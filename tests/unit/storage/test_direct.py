from pathlib import Path

import numpy as np
import pytest

from graphsys.core.errors import CorruptError, DiskError
from graphsys.storage.direct import PAGE, DirectFile, align_up, aligned_empty


def content(nbytes: int) -> bytes:
    return np.arange(nbytes, dtype=np.uint32).view(np.uint8)[:nbytes].tobytes()


@pytest.mark.parametrize("nbytes", [1, 511, PAGE, PAGE + 1, 3 * PAGE - 5])
def test_any_range_up_to_the_end_of_the_file_is_read(tmp_path: Path, nbytes: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(nbytes))
    with DirectFile(path) as file:
        for start in {0, nbytes // 2, nbytes - 1}:
            assert file.read(start, nbytes - start).tobytes() == content(nbytes)[start:]


def test_a_file_that_shrank_after_it_was_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content(8 * PAGE))
    with DirectFile(path) as file:
        path.write_bytes(content(PAGE + 100))
        with pytest.raises(CorruptError, match="truncated"):
            file.read(0, 8 * PAGE)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="none"):
        DirectFile(tmp_path / "none")


def test_buffers_start_on_a_page() -> None:
    for nbytes in (1, PAGE, 10 * PAGE + 3):
        buffer = aligned_empty(nbytes)
        assert buffer.nbytes == nbytes
        assert buffer.ctypes.data % PAGE == 0
    assert align_up(1) == PAGE
