"""Direct reads of feature rows: extents, scans, counts, faults."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from graphsys.core.errors import ArtefactError, CorruptError, MemoryBudgetError, NodeIdError
from graphsys.core.types import Features
from graphsys.storage.features import DirectFeatures, ReadCount, scan_extent, scan_rows
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.row_extents import RowExtents


def _array(folder: Path, num_nodes: int, dim: int) -> FlatArray:
    x = np.repeat(np.arange(num_nodes, dtype=np.float32)[:, None], dim, axis=1)
    return FlatArray(folder, write_array(folder, x))


def _first_column(rows: Features) -> list[int]:
    return [int(value) for value in rows[:, 0]]


def test_near_rows_share_an_extent_and_far_rows_do_not() -> None:
    extents = RowExtents(num_rows=1000, num_words=1, gap=40, extent=400)
    # Rows of 4 bytes: 9 rows of gap are 36 bytes, 10 are 40.
    assert extents.split(np.array([0, 10, 21, 22])).tolist() == [0, 2, 4]


def test_no_extent_is_longer_than_its_limit() -> None:
    extents = RowExtents(num_rows=1000, num_words=1, gap=1000, extent=40)
    assert extents.split(np.arange(25)).tolist() == [0, 10, 20, 25]


def test_a_row_longer_than_an_extent_is_read_whole(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 6, 2000)
    extents = RowExtents.of(array, gap=1, extent=100)
    assert extents.split(np.array([1, 2, 5])).tolist() == [0, 1, 2, 3]
    assert extents.buffer_nbytes >= 8000 + 4096


def test_no_ids_make_no_extents() -> None:
    assert RowExtents(num_rows=9, num_words=1, gap=1, extent=1).split(np.empty(0, np.int64)).tolist() == [0]


def test_two_threads_may_gather_at_once(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 4000, 33)

    def gather(seed: int) -> bool:
        node = np.random.default_rng(seed).permutation(4000)[:1000]
        out = np.empty((1000, 33), np.float32)
        reader.gather(node, out)
        return np.array_equal(out[:, 0], node)

    with DirectFeatures(array, threads=2) as reader, ThreadPoolExecutor(2) as pool:
        assert all(pool.map(gather, range(8)))
    assert reader.count.useful_bytes == 8 * 1000 * 33 * 4
    assert reader.count.read_bytes >= reader.count.useful_bytes // 2


def test_a_truncated_feature_file_is_named(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 4000, 33)
    with DirectFeatures(array, threads=2) as reader:
        os.truncate(array.path, 100_000)
        with pytest.raises(CorruptError, match=r"c/0/0 is truncated"):
            reader.gather(np.arange(4000), np.empty((4000, 33), np.float32))


def test_an_array_that_holds_no_float32_rows_is_refused(tmp_path: Path) -> None:
    spec = write_array(tmp_path / "y", np.arange(5))
    with pytest.raises(ArtefactError, match=r"features are \[N, D\] float32"):
        DirectFeatures(FlatArray(tmp_path / "y", spec))


@pytest.mark.parametrize("dim", [1, 3, 33, 1030])
@pytest.mark.parametrize("memory", [120 << 10, 64 << 20])
@pytest.mark.parametrize("step", [1, 2, 700])
def test_a_scan_yields_each_row_once_in_order(tmp_path: Path, dim: int, memory: int, step: int) -> None:
    array = _array(tmp_path / "x", 3000, dim)
    wanted = np.arange(5, 3000, step)
    count = ReadCount()
    found: list[int] = []
    for place, rows in scan_rows(array, wanted, memory=memory, count=count):
        assert place.start == len(found)
        assert (rows == rows[:, :1]).all()
        found += _first_column(rows)
        assert place.stop == len(found)
    assert found == wanted.tolist()
    assert count.useful_bytes == wanted.size * dim * 4


def test_a_dense_scan_reads_each_byte_about_once(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 30_000, 130)
    count = ReadCount()
    for _ in scan_rows(array, np.arange(0, 30_000, 3), memory=8 << 20, count=count):
        pass
    assert count.read_bytes <= 1.02 * array.spec.nbytes


def test_a_scan_may_be_left_early(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 30_000, 130)
    scan = scan_rows(array, np.arange(30_000), memory=1 << 20)
    place, rows = next(scan)
    assert _first_column(rows) == list(range(place.start, place.stop))
    scan.close()


def test_a_scan_of_nothing_yields_nothing(tmp_path: Path) -> None:
    assert list(scan_rows(_array(tmp_path / "x", 10, 3), np.empty(0, np.int64), memory=1 << 20)) == []


def test_ids_out_of_order_or_out_of_range_are_refused(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 10, 3)
    with pytest.raises(NodeIdError, match="node 4 follows node 4"):
        next(scan_rows(array, np.array([1, 4, 4]), memory=1 << 20))
    with pytest.raises(NodeIdError, match="node 10 has no feature row"):
        next(scan_rows(array, np.array([1, 10]), memory=1 << 20))


def test_a_budget_below_four_rows_says_what_would_do(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 10, 3000)
    with pytest.raises(MemoryBudgetError, match=r"needs 96\.00 KiB beside .* and 20\.00 KiB are left"):
        scan_extent(array, 20 << 10)
    assert scan_extent(array, 96 << 10) >= array.spec.row_nbytes
