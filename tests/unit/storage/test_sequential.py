from pathlib import Path

import numpy as np
import pytest

from graphsys.core.errors import CorruptError
from graphsys.storage.direct import PAGE, DirectFile
from graphsys.storage.sequential import BLOCK_BYTES, FULL_SPEED_BYTES, read_through


@pytest.mark.parametrize("nbytes", [0, 1, PAGE, 5 * PAGE + 17, BLOCK_BYTES + 1])
@pytest.mark.parametrize("memory", [0, 11 * PAGE, FULL_SPEED_BYTES])
def test_the_blocks_are_the_front_of_the_file_in_order(tmp_path: Path, nbytes: int, memory: int) -> None:
    content = np.random.default_rng(nbytes).integers(0, 256, nbytes + 1000, np.uint8)
    (tmp_path / "file").write_bytes(content.tobytes())
    with DirectFile(tmp_path / "file") as file:
        blocks = [block.copy() for block in read_through(file, nbytes, memory=memory)]
    assert np.array_equal(np.concatenate([content[:0], *blocks]), content[:nbytes])
    assert max((block.nbytes for block in blocks), default=0) <= max(memory // 5, PAGE)


def test_a_reader_that_stops_early_leaves_nothing_running(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100 * PAGE))
    with DirectFile(tmp_path / "file") as file:
        blocks = read_through(file, 100 * PAGE, memory=5 * PAGE)
        assert next(blocks).nbytes == PAGE
        blocks.close()


def test_a_file_cut_short_after_it_was_opened_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(20 * PAGE))
    with DirectFile(path) as file:
        path.write_bytes(bytes(3 * PAGE))
        with pytest.raises(CorruptError, match="truncated"):
            list(read_through(file, 20 * PAGE, memory=5 * PAGE))
