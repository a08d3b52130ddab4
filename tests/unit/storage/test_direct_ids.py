"""Single ids by place: order, repetitions, every bit, counts, refusals."""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.rings import has_rings

from graphsys.core.errors import ArtefactError, CorruptError
from graphsys.core.units import KIB, MIB
from graphsys.storage import direct_ids
from graphsys.storage.direct_ids import DirectIds
from graphsys.storage.flat import FlatArray, write_array

# Enough for io_uring, for several threads, and for one read at a time.
MEMORIES = [16 * MIB, MIB, 200 * KIB]


def _array(folder: Path, ids: npt.NDArray[np.int32] | npt.NDArray[np.int64]) -> FlatArray:
    return FlatArray(folder, write_array(folder, ids))


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_ids_come_in_the_order_of_their_places_which_may_repeat(tmp_path: Path, dtype: str, memory: int) -> None:
    ids = np.arange(100_000)[::-1].astype(dtype)
    place = np.random.default_rng(0).integers(0, 100_000, 30_000)
    with DirectIds(_array(tmp_path / "i", ids), memory=memory) as reader:
        found = reader.take(place.copy())
    assert found.dtype == ids.dtype
    assert np.array_equal(found, ids[place])


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_every_bit_is_kept_also_of_words_that_are_no_float(tmp_path: Path, dtype: str, memory: int) -> None:
    """Signalling and quiet NaNs, both signs, infinities, subnormal numbers, as float32 and in both halves."""
    words = np.array([0x7F800001, 0xFF800001, 0x7FC00000, 0xFFFFFFFF, 0x7F800000, 0x00000001, 0x80000000], np.uint32)
    ids = np.tile(words, 2000).view(dtype)
    place = np.random.default_rng(1).permutation(ids.shape[0])
    with DirectIds(_array(tmp_path / "i", ids), memory=memory) as reader:
        assert reader.take(place.copy()).tobytes() == ids[place].tobytes()


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9])
def test_any_small_number_of_places(tmp_path: Path, count: int) -> None:
    with DirectIds(_array(tmp_path / "i", np.arange(50, dtype=np.int32)), memory=MIB) as reader:
        assert reader.take(np.arange(count)[::-1].copy()).tolist() == list(range(count))[::-1]


def test_a_pass_that_wants_nearly_every_page_reads_each_about_once(tmp_path: Path) -> None:
    ids = np.arange(4_000_000, dtype=np.int32)
    with DirectIds(_array(tmp_path / "i", ids), memory=16 * MIB) as reader:
        reader.take(np.random.default_rng(0).integers(0, 4_000_000, 100_000))
        assert reader.count.useful_bytes == 400_000
        assert 0.95 * ids.nbytes < reader.count.read_bytes < 1.1 * ids.nbytes


def test_places_whose_number_does_not_fit_beside_them_take_several_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_ids, "_BITS", 20)  # a thousand ids take ten
    place = np.random.default_rng(0).integers(0, 1000, 5000)
    with DirectIds(_array(tmp_path / "i", np.arange(1000) * 3), memory=MIB) as reader:
        assert np.array_equal(reader.take(place.copy()), 3 * place)


@pytest.mark.parametrize("wrong", [-1, 50, 1 << 30, 1 << 62])
def test_a_place_outside_is_refused(tmp_path: Path, wrong: int) -> None:
    with (
        DirectIds(_array(tmp_path / "i", np.arange(50)), memory=MIB) as reader,
        pytest.raises(IndexError, match=f"place {wrong} is outside .*, which holds 50 ids"),
    ):
        reader.take(np.array([3, wrong, 4]))


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_truncated_file_is_named(tmp_path: Path, memory: int) -> None:
    array = _array(tmp_path / "i", np.arange(200_000, dtype=np.int32))
    with DirectIds(array, memory=memory) as reader:
        os.truncate(array.path, 100_000)
        with pytest.raises(CorruptError, match=r"i/c/0 is truncated"):
            reader.take(np.arange(0, 200_000, 7))


@pytest.mark.parametrize("wrong", [np.zeros(5, np.float32), np.zeros((5, 2), np.int32)])
def test_what_holds_no_ids_is_refused(tmp_path: Path, wrong: npt.NDArray[np.int32]) -> None:
    with pytest.raises(ArtefactError, match=r"ids are \[N\] int32 or int64"):
        DirectIds(_array(tmp_path / "i", wrong), memory=MIB)


def test_few_bytes_of_buffers_are_read_through_threads(tmp_path: Path) -> None:
    array = _array(tmp_path / "i", np.arange(50))
    for memory, engine in ((16 * MIB, "io_uring" if has_rings() else "threads"), (MIB, "threads")):
        with DirectIds(array, memory=memory) as reader:
            assert reader.engine == engine
