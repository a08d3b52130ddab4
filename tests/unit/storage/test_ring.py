"""Reads through io_uring: many extents, faults, a ring that is refused."""

import os
from pathlib import Path

import numpy as np
import pytest
from helpers.rings import has_rings

from graphsys.core.errors import CorruptError
from graphsys.storage.features import DirectFeatures
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.ring import open_ring

pytestmark = pytest.mark.skipif(not has_rings(), reason="liburing is not installed, or the kernel allows no io_uring")


def _array(folder: Path, num_nodes: int) -> FlatArray:
    x = np.repeat(np.arange(num_nodes, dtype=np.float32)[:, None], 16, axis=1)
    return FlatArray(folder, write_array(folder, x))


def test_more_extents_than_a_ring_holds_come_out_as_through_threads(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 200_000)
    node = np.random.default_rng(0).permutation(200_000)[:300]  # 43 KiB apart, so most have an extent of their own
    found, nbytes = [], []
    for rings in (True, False):
        with DirectFeatures(array, rings=rings) as reader:
            out = np.empty((300, 16), np.float32)
            reader.gather(node, out)
            found.append(out)
            nbytes.append(reader.count.read_bytes)
    assert np.array_equal(found[0], found[1])
    assert nbytes[0] == nbytes[1]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 20_000)
    with DirectFeatures(array) as reader:
        os.truncate(array.path, 100_000)
        with pytest.raises(CorruptError, match=r"c/0/0 is truncated"):
            reader.gather(np.array([3, 19_999]), np.empty((2, 16), np.float32))


def test_a_file_that_cannot_be_read_has_no_extent_done() -> None:
    ring = open_ring(8192)
    assert ring is not None
    done, nbytes = ring.read_extents(
        -1, np.array([0, 1, 2]), np.array([0, 5000]), np.array([0, 1]), np.empty((2, 16), np.uint32)
    )
    ring.close()
    assert (done.tolist(), nbytes) == ([False, False], 0)


def test_a_ring_that_is_not_usable_any_more_reads_nothing(tmp_path: Path) -> None:
    array = _array(tmp_path / "x", 20_000)
    ring = open_ring(8192)
    assert ring is not None
    ring.usable = False
    fileno = os.open(array.path, os.O_RDONLY)
    done, _ = ring.read_extents(fileno, np.array([0, 1]), np.array([7]), np.array([0]), np.empty((1, 16), np.uint32))
    os.close(fileno)
    ring.close()
    assert not done.any()
