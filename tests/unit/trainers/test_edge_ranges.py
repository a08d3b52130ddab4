from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from helpers.graphs import tiny_store

from graphsys.core.types import NodeIds
from graphsys.storage.store import Store
from graphsys.trainers.edge_ranges import EDGE_NBYTES, START_NBYTES, EdgeRange, RangeReader, num_ranges

STATE, BLOCK = 32, 16
ALL = 1 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tiny_store(tmp_path_factory.mktemp("graph")))


def ranges(store: Store, nbytes: int) -> list[EdgeRange]:
    reader = RangeReader(store, store.edge_type_within("node"))
    return list(reader.ranges(nbytes=nbytes, state_nbytes=STATE, block_rows=BLOCK))


def edges_of(part: EdgeRange) -> NodeIds:
    """[2, E] global sources and targets, in the order of the range."""
    block = np.repeat(np.arange(part.offset.shape[0] - 1), np.diff(part.offset))
    return np.stack([block * BLOCK + part.source, part.first + part.target.astype(np.int64)])


@pytest.mark.parametrize("nbytes", [1, 100, 500, 3000, ALL])
def test_ranges_hold_every_edge_once_sorted_by_block_then_target(store: Store, nbytes: int) -> None:
    topology = store.topology(store.edge_type_within("node"), in_memory=True)
    col = np.repeat(np.arange(200), np.diff(topology.indptr))
    found = []
    for part in ranges(store, nbytes):
        edges = edges_of(part)
        keys = list(zip(edges[0] // BLOCK, edges[1], strict=True))
        assert keys == sorted(keys)
        np.testing.assert_array_equal(part.source_blocks(), np.unique(edges[0] // BLOCK))
        found.append(edges)
    edges = np.concatenate(found, axis=1)
    order = np.lexsort(edges)
    np.testing.assert_array_equal(edges[:, order], np.stack([topology.indices, col]))


def test_everything_is_one_range_when_it_fits(store: Store) -> None:
    (part,) = ranges(store, ALL)
    degree = np.diff(store.topology(store.edge_type_within("node")).indptr)
    np.testing.assert_array_equal(part.degree, degree)
    assert not part.is_open


@pytest.mark.parametrize("nbytes", [500, 3000])
def test_ranges_keep_to_their_memory(store: Store, nbytes: int) -> None:
    for part in ranges(store, nbytes):
        assert part.num_dst * (STATE + START_NBYTES) + part.num_edges * EDGE_NBYTES <= nbytes


def test_a_hub_comes_in_parts_that_follow_each_other(store: Store) -> None:
    parts = ranges(store, 300)
    assert any(part.is_open for part in parts)
    for before, after in pairwise(parts):
        assert before.num_dst == 1 or not before.is_open
        assert after.first == before.first + (0 if before.is_open else before.num_dst)
    for first in {part.first for part in parts if part.is_open}:
        same = [part for part in parts if part.first <= first < part.first + part.num_dst]
        held = sum(int((part.target == first - part.first).sum()) for part in same)
        assert {int(part.degree[first - part.first]) for part in same} == {held}


@pytest.mark.parametrize("threads", [2, 7, 300])
def test_the_number_of_threads_changes_nothing(store: Store, threads: int) -> None:
    reader = RangeReader(store, store.edge_type_within("node"))
    for nbytes in (500, ALL):
        many = reader.ranges(nbytes=nbytes, state_nbytes=STATE, block_rows=BLOCK, threads=threads)
        for expected, found in zip(ranges(store, nbytes), many, strict=True):
            for name in ("degree", "offset", "source", "target"):
                np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("nbytes", [3000, 8000, ALL])
def test_the_number_of_ranges_is_foretold(store: Store, nbytes: int) -> None:
    told = num_ranges(num_nodes=200, num_edges=1600, nbytes=nbytes, state_nbytes=STATE, index_nbytes=4)
    assert abs(told - len(ranges(store, nbytes))) <= 1


def test_every_byte_is_read_once(store: Store) -> None:
    reader = RangeReader(store, store.edge_type_within("node"))
    parts = list(reader.ranges(nbytes=3000, state_nbytes=STATE, block_rows=BLOCK))
    assert reader.count.read_bytes == 4 * 1600 + 8 * (200 + len(parts))


def test_a_graph_without_edges_is_one_range(tmp_path: Path) -> None:
    empty = Store.open(tiny_store(tmp_path, num_nodes=20, num_edges=0))
    (part,) = ranges(empty, ALL)
    assert (part.num_dst, part.num_edges, part.source_blocks().size) == (20, 0, 0)
