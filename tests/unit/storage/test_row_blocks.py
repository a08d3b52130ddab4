from pathlib import Path

import numpy as np
import pytest

from graphsys.core.errors import CorruptError
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.row_blocks import blocks_nbytes, cut_rows, read_blocks

ROWS = np.arange(5000 * 7, dtype=np.float32).reshape(5000, 7)


@pytest.fixture
def array(tmp_path: Path) -> FlatArray:
    return FlatArray(tmp_path / "a", write_array(tmp_path / "a", ROWS))


@pytest.mark.parametrize("reads", [1, 3, 40])
def test_blocks_come_in_order_with_their_rows(array: FlatArray, reads: int) -> None:
    blocks = [(0, 300), (300, 301), (1999, 2299), (17, 20), (4999, 5000)]
    found = [(first, rows.copy()) for first, rows in read_blocks(array, blocks, block_rows=300, reads=reads)]
    assert [first for first, _ in found] == [start for start, _ in blocks]
    for (start, stop), (_, rows) in zip(blocks, found, strict=True):
        np.testing.assert_array_equal(rows, ROWS[start:stop])


def test_a_whole_array_is_read_once(array: FlatArray) -> None:
    count = ReadCount()
    blocks = read_blocks(array, cut_rows(0, 5000, 1024), block_rows=1024, count=count)  # 7 pages each
    np.testing.assert_array_equal(np.concatenate([rows.copy() for _, rows in blocks]), ROWS)
    assert ROWS.nbytes <= count.read_bytes < ROWS.nbytes + 4096


def test_rows_stay_while_the_next_blocks_are_read(array: FlatArray) -> None:
    for first, rows in read_blocks(array, cut_rows(0, 5000, 100), block_rows=100):
        np.testing.assert_array_equal(rows, ROWS[first : first + 100])


def test_numbers_without_columns_are_read_too(tmp_path: Path) -> None:
    values = np.arange(10_000, dtype=np.int64)
    array = FlatArray(tmp_path / "v", write_array(tmp_path / "v", values))
    overlapping = [(0, 4001), (4000, 8001), (8000, 10_000)]
    for first, found in read_blocks(array, overlapping, block_rows=4001):
        np.testing.assert_array_equal(found, values[first : first + found.shape[0]])


def test_no_blocks_read_nothing(array: FlatArray) -> None:
    assert list(read_blocks(array, [], block_rows=1)) == []


def test_a_truncated_file_is_told(array: FlatArray) -> None:
    blocks = read_blocks(array, cut_rows(0, 5000, 100), block_rows=100)
    next(blocks)
    with array.path.open("rb+") as file:
        file.truncate(50_000)
    with pytest.raises(CorruptError, match="is truncated"):
        list(blocks)


def test_ranges_cover_all_rows_once() -> None:
    assert cut_rows(3, 10, 3) == [(3, 6), (6, 9), (9, 10)]
    assert cut_rows(5, 5, 3) == []


def test_the_memory_of_a_reader_counts_every_buffer() -> None:
    assert blocks_nbytes(28, 100, reads=2) == 3 * (4096 + 4096)
