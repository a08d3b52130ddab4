"""The gather seam on the processor."""

import numpy as np
import pytest

from graphsys.core.errors import CorruptError
from graphsys.storage.codec import CODECS, decode, encode
from graphsys.storage.gather import CpuGather


@pytest.mark.parametrize("dim", [1, 3, 7, 31, 32, 33, 130])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("threads", [1, 2])
def test_each_row_comes_from_where_its_source_says(dim: int, codec: str, threads: int) -> None:
    rng = np.random.default_rng(dim)
    rows = encode(rng.standard_normal((6000, dim)).astype(np.float32), codec)
    cache = encode(rng.standard_normal((4000, dim)).astype(np.float32), codec)
    source = rng.permutation(np.concatenate([np.arange(6000), ~np.arange(4000)])).astype(np.int32)
    everything = np.concatenate([decode(rows, dim, codec), decode(cache, dim, codec)[::-1]])
    out = np.empty((10_000, dim), np.float32)
    gather = CpuGather(dim, codec, threads=threads)
    gather.gather(rows, cache, source, out)
    gather.close()
    assert np.array_equal(out, everything[source])  # ~slot counts from the end


def test_every_finite_half_is_decoded_as_numpy_does() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = halves[np.isfinite(halves)].astype(np.float32)[:, None]
    out = np.empty_like(values)
    CpuGather(1, "float16").gather(
        encode(values, "float16"), np.empty((0, 16), np.uint8), np.arange(len(values), dtype=np.int32), out
    )
    assert np.array_equal(out, values)


def test_inserted_rows_overwrite_their_slots_and_no_others() -> None:
    rows = encode(np.arange(5, dtype=np.float32)[:, None], "float32")
    cache = encode(np.full((4, 1), -1, np.float32), "float32")
    CpuGather(1, "float32").insert(rows, cache, np.array([4, 2], np.int32), np.array([0, 3], np.int32))
    assert decode(cache, 1, "float32")[:, 0].tolist() == [4, -1, -1, 2]


@pytest.mark.parametrize("wrong", [3, -3])
def test_an_index_outside_is_refused_and_out_is_unchanged(wrong: int) -> None:
    rows, cache = np.zeros((3, 128), np.uint8), np.zeros((2, 128), np.uint8)
    out = np.ones((2, 1), np.float32)
    gather = CpuGather(1, "float32")
    with pytest.raises(CorruptError, match=f"name place {wrong}, but places are -2 to 2"):
        gather.gather(rows, cache, np.array([0, wrong], np.int32), out)
    assert (out == 1).all()
    with pytest.raises(CorruptError, match="slots that rows enter"):
        gather.insert(rows, cache, np.array([0], np.int32), np.array([2], np.int32))
    with pytest.raises(CorruptError, match="rows that enter"):
        gather.insert(rows, cache, np.array([3], np.int32), np.array([0], np.int32))
