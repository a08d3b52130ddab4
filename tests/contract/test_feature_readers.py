"""What every feature reader does, whatever holds the rows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.rings import has_rings

from graphsys.core.errors import NodeIdError
from graphsys.core.types import Features
from graphsys.storage.features import DirectFeatures, FeatureReader, MemoryFeatures
from graphsys.storage.flat import FlatArray, write_array

NUM_NODES = 3000


def rows_that_hold_their_id(num_nodes: int, dim: int) -> Features:
    return np.repeat(np.arange(num_nodes, dtype=np.float32)[:, None], dim, axis=1)


@pytest.fixture(params=[1, 3, 31, 32, 33, 130])
def x(request: pytest.FixtureRequest) -> Features:
    rows = rows_that_hold_their_id(NUM_NODES, request.param)
    rows[:, -1] += 0.5  # the last column tells a row from one that is shifted
    return rows


class FeatureReaderContract:
    def test_rows_come_in_the_order_of_the_request(self, reader: FeatureReader, x: Features) -> None:
        node = np.random.default_rng(0).permutation(NUM_NODES)[:500]
        out = np.empty((500, x.shape[1]), np.float32)
        reader.gather(node, out)
        assert np.array_equal(out, x[node])

    def test_a_node_may_be_asked_for_several_times(self, reader: FeatureReader, x: Features) -> None:
        node = np.array([7, 2999, 7, 0, 7, 2999])
        out = np.empty((6, x.shape[1]), np.float32)
        reader.gather(node, out)
        assert np.array_equal(out, x[node])

    def test_all_rows_at_once(self, reader: FeatureReader, x: Features) -> None:
        out = np.empty_like(x)
        reader.gather(np.arange(NUM_NODES), out)
        assert np.array_equal(out, x)

    def test_no_rows(self, reader: FeatureReader, x: Features) -> None:
        reader.gather(np.empty(0, np.int64), np.empty((0, x.shape[1]), np.float32))
        assert reader.count.useful_bytes == 0

    @pytest.mark.parametrize("wrong", [NUM_NODES, -1, 1 << 40])
    def test_an_id_outside_is_refused_and_out_is_unchanged(
        self, reader: FeatureReader, x: Features, wrong: int
    ) -> None:
        out = np.full((3, x.shape[1]), -7, np.float32)
        with pytest.raises(NodeIdError, match=f"node {wrong} has no feature row; .* 0 to 2999"):
            reader.gather(np.array([1, wrong, 2]), out)
        assert (out == -7).all()

    def test_the_bytes_of_all_rows_asked_for_are_counted(self, reader: FeatureReader, x: Features) -> None:
        reader.gather(np.array([5, 6, 5]), np.empty((3, x.shape[1]), np.float32))
        reader.gather(np.array([9]), np.empty((1, x.shape[1]), np.float32))
        assert reader.count.useful_bytes == 4 * 4 * x.shape[1]


class TestMemoryFeatures(FeatureReaderContract):
    @pytest.fixture(params=[1, 2])
    def reader(self, x: Features, request: pytest.FixtureRequest) -> Iterator[FeatureReader]:
        reader = MemoryFeatures(x, threads=request.param)
        yield reader
        reader.close()


class TestDirectFeatures(FeatureReaderContract):
    @pytest.fixture(params=[1, 2])
    def reader(self, x: Features, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FeatureReader]:
        array = FlatArray(tmp_path / "x", write_array(tmp_path / "x", x))
        with DirectFeatures(array, threads=request.param, rings=False) as reader:
            assert reader.engine == "threads"
            yield reader


@pytest.mark.skipif(not has_rings(), reason="liburing is not installed, or the kernel allows no io_uring")
class TestDirectFeaturesByRing(FeatureReaderContract):
    @pytest.fixture
    def reader(self, x: Features, tmp_path: Path) -> Iterator[FeatureReader]:
        array = FlatArray(tmp_path / "x", write_array(tmp_path / "x", x))
        with DirectFeatures(array) as reader:
            assert reader.engine == "io_uring"
            yield reader
