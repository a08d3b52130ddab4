import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.errors import ArtefactError, CorruptError
from graphsys.storage.direct import PAGE
from graphsys.storage.files import drop_cache
from graphsys.storage.flat import FlatArray, FlatWriter, chunk_file, write_array

ARRAYS: list[npt.NDArray[Any]] = [
    np.arange(300_000, dtype=np.int64),
    np.arange(3, dtype=np.int32),
    np.arange(5003 * 130, dtype=np.float32).reshape(5003, 130),
    np.arange(7 * 3, dtype=np.float16).reshape(7, 3),
    np.zeros((0, 4), np.float32),
    np.array([True, False]),
    np.arange(4, dtype=np.uint64),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_any_zarr_reader_and_our_own_see_the_same_rows(tmp_path: Path, array: npt.NDArray[Any]) -> None:
    spec = write_array(tmp_path / "a", array)
    opened = FlatArray(tmp_path / "a", spec)
    assert np.array_equal(zarr.open_array(tmp_path / "a", mode="r")[...], array)
    assert np.array_equal(opened.memmap(), array)
    assert np.array_equal(opened.read(), array)
    opened.verify()


def test_the_front_of_the_chunk_file_is_the_array_in_c_order(tmp_path: Path) -> None:
    array = np.arange(1000 * 33, dtype=np.float32).reshape(1000, 33)
    write_array(tmp_path / "a", array)
    assert chunk_file(tmp_path / "a", 2).read_bytes()[: array.nbytes] == array.tobytes()


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_range_of_rows_is_read_as_written(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    rows, width = data.draw(st.integers(1, 3000)), data.draw(st.sampled_from([1, 3, 7, 31, 128, 1433]))
    pieces = data.draw(st.lists(st.integers(0, rows), max_size=4))
    array = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    folder = tmp_path_factory.mktemp("flat") / "a"
    writer = FlatWriter(folder, np.float32, (width,))
    for piece in np.split(array, sorted(pieces)):
        writer.append(piece)
    opened = FlatArray(folder, writer.close())
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    assert np.array_equal(opened.read(start, stop), array[start:stop])
    assert np.array_equal(np.concatenate([block for _, block in opened.blocks(997)]), array)
    opened.verify()


def test_every_flipped_byte_of_data_padding_index_and_metadata_is_found(tmp_path: Path) -> None:
    array = np.arange(400, dtype=np.float32).reshape(50, 8)
    opened = FlatArray(tmp_path / "a", write_array(tmp_path / "a", array))
    generator = np.random.Generator(np.random.PCG64(1))
    for path in (opened.path, tmp_path / "a" / "zarr.json"):
        size = path.stat().st_size
        places = {0, array.nbytes - 1, size - 1} | set(generator.integers(0, size, 40).tolist())
        for place in sorted(place for place in places if place < size):
            raw = bytearray(path.read_bytes())
            raw[place] ^= 1 << int(generator.integers(8))
            path.write_bytes(raw)
            with pytest.raises(CorruptError, match="corrupt"):
                opened.verify()
            raw = bytearray(raw)
            path.write_bytes(_original(opened, path, array, tmp_path))


def _original(opened: FlatArray, path: Path, array: npt.NDArray[Any], tmp_path: Path) -> bytes:
    fresh = tmp_path / "fresh"
    if not fresh.exists():
        write_array(fresh, array)
    return (fresh / path.relative_to(opened.folder)).read_bytes()


def test_a_truncated_file_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    spec = write_array(tmp_path / "a", np.arange(3 * PAGE, dtype=np.int64))
    path = chunk_file(tmp_path / "a", 1)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CorruptError, match="truncated"):
        FlatArray(tmp_path / "a", spec)


def test_rows_of_another_shape_are_refused(tmp_path: Path) -> None:
    writer = FlatWriter(tmp_path / "a", np.float32, (3,))
    with pytest.raises(ArtefactError, match="do not fit"):
        writer.append(np.zeros((2, 4), np.float32))
    writer.abort()
    with pytest.raises(ArtefactError, match="at least one column"):
        FlatWriter(tmp_path / "b", np.float32, (0,))


def test_checked_blocks_are_the_rows_in_order_and_stop_at_a_chunk_that_differs(tmp_path: Path) -> None:
    array = np.arange(3_000_000, dtype=np.int32).reshape(-1, 3)
    opened = FlatArray(tmp_path / "a", write_array(tmp_path / "a", array))
    rows_per_chunk = opened.spec.chunk_rows
    for rows in (1000, rows_per_chunk, 3 * rows_per_chunk + 5):
        blocks = list(opened.checked_blocks(rows))
        assert [start for start, _ in blocks] == np.cumsum([0, *(block.shape[0] for _, block in blocks)])[:-1].tolist()
        assert max(block.shape[0] for _, block in blocks) <= rows
        assert np.array_equal(np.concatenate([block for _, block in blocks]), array)
    raw = bytearray(opened.path.read_bytes())
    raw[2 * opened.spec.chunk_nbytes + 9] ^= 1
    opened.path.write_bytes(raw)
    left = iter(opened.checked_blocks(rows_per_chunk))
    assert [next(left)[0], next(left)[0]] == [0, rows_per_chunk]
    with pytest.raises(CorruptError, match="chunk 2 is corrupt"):
        next(left)


def test_a_small_budget_finds_the_same_damage(tmp_path: Path) -> None:
    opened = FlatArray(tmp_path / "a", write_array(tmp_path / "a", np.zeros(1 << 20, np.int32)))
    opened.verify(memory=0)
    raw = bytearray(opened.path.read_bytes())
    raw[-30] ^= 1  # in the index
    opened.path.write_bytes(raw)
    with pytest.raises(CorruptError, match="index is corrupt"):
        opened.verify(memory=0)
    raw[(3 << 20) + 77] ^= 1
    opened.path.write_bytes(raw)
    with pytest.raises(CorruptError, match="chunk 3 is corrupt"):
        opened.verify(memory=0)


def test_pages_that_were_prefetched_are_there_when_a_map_asks_for_them(tmp_path: Path) -> None:
    opened = FlatArray(tmp_path / "a", write_array(tmp_path / "a", np.arange(1 << 22)))
    rows = np.unique(np.r_[np.arange(5), np.arange(1 << 18, 1 << 22, 513), (1 << 22) - 1])
    if not _faults(opened, rows):
        pytest.skip("this file system keeps its pages in memory")
    assert _faults(opened, rows, lambda: opened.prefetch(rows)) == 0
    assert _faults(opened, rows, opened.prefetch) == 0


@pytest.mark.parametrize("array", [np.zeros((0, 4), np.float32), np.arange(3)])
def test_prefetching_few_rows_or_none_does_no_harm(tmp_path: Path, array: npt.NDArray[Any]) -> None:
    opened = FlatArray(tmp_path / "a", write_array(tmp_path / "a", array))
    for rows in (None, np.arange(array.shape[0]), np.empty(0, np.int64)):
        opened.prefetch(rows)


def _faults(opened: FlatArray, rows: npt.NDArray[np.int64], before: Callable[[], None] = lambda: None) -> int:
    """Return how many reads of ``rows`` through a fresh map had to wait for the disk."""
    with opened.path.open("rb") as file:
        drop_cache(file.fileno())
    before()
    faults = resource.getrusage(resource.RUSAGE_THREAD).ru_majflt
    assert np.array_equal(opened.memmap()[rows], rows)
    return resource.getrusage(resource.RUSAGE_THREAD).ru_majflt - faults
