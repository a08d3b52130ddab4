"""Copies past the caches give what ordinary copies give, and are used only where whole lines fit."""

import numpy as np
import pytest

from graphsys.core.units import MIB
from graphsys.storage.codec import encode
from graphsys.storage.direct import aligned_empty
from graphsys.storage.gather import CpuGather
from graphsys.storage.gather_kernels import copy_rows, gather_float32, stream_float32, stream_slots
from graphsys.storage.stream import streams


@pytest.mark.parametrize("dim", [16, 32, 48, 128, 144])
def test_streamed_rows_are_those_of_an_ordinary_gather(dim: int) -> None:
    rng = np.random.default_rng(dim)
    rows, cache = (rng.standard_normal((count, dim)).astype(np.float32) for count in (300, 200))
    source = rng.permutation(np.concatenate([np.arange(300), ~np.arange(200)])).astype(np.int32)
    expected = np.empty((500, dim), np.float32)
    gather_float32(rows, cache, source, expected)
    out = aligned_empty(expected.nbytes).view(np.float32).reshape(expected.shape)
    stream_float32(rows, cache, source, out)
    assert np.array_equal(out, expected)


def test_streamed_rows_leave_the_padding_of_their_source_behind() -> None:
    rows = encode(np.arange(3 * 16, dtype=np.float32).reshape(3, 16), "float32").view(np.float32)
    out = aligned_empty(2 * 64).view(np.float32).reshape(2, 16)
    stream_float32(rows, rows, np.array([2, ~1], np.int32), out)
    assert np.array_equal(out, np.arange(48, dtype=np.float32).reshape(3, 16)[[2, 1]])


def test_streamed_slots_are_overwritten_and_no_others() -> None:
    rows = np.arange(10 * 16, dtype=np.uint64).reshape(10, 16)
    row, slot = np.array([9, 0, 3], np.int32), np.array([1, 4, 0], np.int32)
    expected = np.full((5, 16), 7, np.uint64)
    cache = aligned_empty(expected.nbytes).view(np.uint64).reshape(expected.shape)
    cache[:] = expected
    copy_rows(rows, expected, row, slot)
    stream_slots(rows, cache, row, slot)
    assert np.array_equal(cache, expected)


def test_only_large_aligned_arrays_of_whole_lines_are_streamed() -> None:
    large = aligned_empty(4 * MIB)
    assert streams(large, 512)
    assert not streams(large, 516)  # rows that share a line
    assert not streams(large[16:], 512)  # rows that start within a line
    assert not streams(large[: 4 * MIB - 64], 512)  # stays in a core's caches


@pytest.mark.parametrize("shift", [0, 4])  # a buffer on a page, and one that starts within a line
@pytest.mark.parametrize("threads", [1, 2])
def test_a_large_gather_gives_each_row_where_its_source_says(shift: int, threads: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30_000, 128)).astype(np.float32)
    rows, cache = encode(x[:20_000], "float32"), encode(x[20_000:], "float32")
    source = rng.integers(-10_000, 20_000, 20_000).astype(np.int32)
    out = aligned_empty(4 * shift + 20_000 * 512)[4 * shift :][: 20_000 * 512].view(np.float32).reshape(20_000, 128)
    gather = CpuGather(128, "float32", threads=threads)
    gather.gather(rows, cache, source, out)
    assert np.array_equal(out, x[np.where(source >= 0, source, 20_000 + ~source)])
    slot = rng.permutation(10_000)[:5_000].astype(np.int32)
    row = rng.integers(0, 20_000, 5_000).astype(np.int32)
    expected = cache.copy()
    expected[slot] = rows[row]
    held = aligned_empty(cache.nbytes).reshape(cache.shape)
    held[:] = cache
    gather.insert(rows, held, row, slot)
    gather.close()
    assert np.array_equal(held, expected)
