"""Buffers that come back by themselves."""

import gc

import numpy as np
import torch

from graphsys.storage.buffer_pool import BufferPool
from graphsys.storage.direct import PAGE


def test_a_buffer_is_lent_again_only_when_no_view_of_it_is_left() -> None:
    pool = BufferPool(8 * PAGE, 2)
    tensor = torch.from_numpy(pool.take(4 * PAGE).view(np.float32).reshape(-1, 4))[1:]
    first = tensor.data_ptr() - 16
    other = pool.take(PAGE)
    assert other.ctypes.data != first
    del tensor
    assert pool.take(PAGE).ctypes.data == first


def test_a_consumer_that_keeps_its_buffers_gets_more() -> None:
    pool = BufferPool(PAGE, 2)
    kept = [pool.take(PAGE) for _ in range(5)]
    for index, buffer in enumerate(kept):
        buffer[:] = index
    assert len({buffer.ctypes.data for buffer in kept}) == 5
    assert [int(buffer[7]) for buffer in kept] == [0, 1, 2, 3, 4]


def test_a_request_beyond_the_size_gets_a_larger_buffer() -> None:
    pool = BufferPool(PAGE, 2)
    large = pool.take(3 * PAGE)
    large[:] = 1
    assert large.nbytes == 3 * PAGE
    assert large.ctypes.data % PAGE == 0
    del large
    gc.collect()
    assert pool.take(2 * PAGE).nbytes == 2 * PAGE


def test_a_closed_pool_keeps_nothing() -> None:
    pool = BufferPool(PAGE, 2)
    lent = pool.take(PAGE)
    pool.close()
    lent[:] = 3
    assert (lent == 3).all()
