import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.types import NodeIds
from graphsys.trainers.node_set import NodeSet

NUM_IDS = 200
IDS = st.lists(st.integers(0, NUM_IDS - 1), max_size=80).map(lambda ids: np.array(ids, np.int64))


@given(first=IDS, second=IDS)
@settings(deadline=None)
def test_members_are_ascending_and_positions_find_them(first: NodeIds, second: NodeIds) -> None:
    held = NodeSet(NUM_IDS)
    held.add(first)
    held.add(second.astype(np.int32))
    both = np.concatenate([first, second])
    members = held.members()
    np.testing.assert_array_equal(members, np.unique(both))
    np.testing.assert_array_equal(members[held.positions(both)], both)


def test_a_cleared_set_is_empty() -> None:
    held = NodeSet(65)
    held.add(np.array([0, 64]))
    held.clear()
    assert held.members().size == 0


@given(
    degrees=st.lists(st.integers(0, 6), min_size=1, max_size=12),
    max_members=st.integers(1, 40),
    max_degree=st.integers(1, 6),
    seed=st.integers(0, 100),
)
@settings(deadline=None)
def test_growing_takes_whole_destinations_until_one_does_not_fit(
    degrees: list[int], max_members: int, max_degree: int, seed: int
) -> None:
    indptr = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int64)
    source = np.random.default_rng(seed).integers(0, NUM_IDS, indptr[-1]).astype(np.int32)
    held = NodeSet(NUM_IDS)
    taken = held.grow(20, indptr, source, max_members, max_degree)
    wanted = np.concatenate([np.arange(20, 20 + taken), source[: indptr[taken]]])
    np.testing.assert_array_equal(held.members(), np.unique(wanted))
    assert 1 <= taken <= len(degrees)
    if taken > 1:
        assert held.members().size <= max_members
        assert max(degrees[:taken]) <= max_degree
    if degrees[0] > max_degree:
        assert taken == 1
