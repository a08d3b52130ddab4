"""Residency plans on chosen cases."""

import tracemalloc

import numpy as np
import pytest

from graphsys.core.errors import MemoryBudgetError, NodeIdError
from graphsys.core.types import NodeIds
from graphsys.storage.residency import plan_residency, residency_nbytes


def _trace(*batches: list[int]) -> list[NodeIds]:
    return [np.array(batch, np.int64) for batch in batches]


def _empty(num_slots: int) -> NodeIds:
    return np.full(num_slots, -1, np.int64)


def test_without_slots_every_row_is_fetched() -> None:
    plan = plan_residency(_trace([3, 1], [1, 3]), 0, _empty(0))
    assert [batch.fetch_node.tolist() for batch in plan.batches] == [[1, 3], [1, 3]]
    assert [batch.source.tolist() for batch in plan.batches] == [[1, 0], [0, 1]]


def test_the_row_used_next_soonest_gets_the_only_slot() -> None:
    plan = plan_residency(_trace([7, 5], [5], [7], [5]), 1, _empty(1))
    assert [batch.fetch_node.tolist() for batch in plan.batches] == [[5, 7], [], [7], []]
    assert plan.batches[0].insert_row.tolist() == [0]
    assert plan.final_slot_node.tolist() == [5]


def test_a_slot_that_serves_a_batch_may_be_overwritten_by_it() -> None:
    plan = plan_residency(_trace([4, 6], [6]), 1, np.array([4]))
    assert plan.batches[0].source.tolist() == [~0, 0]
    assert plan.batches[0].insert_slot.tolist() == [0]
    assert plan.batches[1].source.tolist() == [~0]


def test_rows_kept_from_the_window_before_are_not_fetched() -> None:
    plan = plan_residency(_trace([2, 9]), 3, np.array([9, -1, 2]))
    assert plan.batches[0].fetch_node.size == 0
    assert plan.batches[0].source.tolist() == [~2, ~0]
    assert plan.final_slot_node.tolist() == [9, -1, 2]


def test_an_empty_window_leaves_the_cache_as_it_was() -> None:
    plan = plan_residency([], 2, np.array([5, -1]))
    assert plan.batches == ()
    assert plan.final_slot_node.tolist() == [5, -1]


def test_a_node_named_twice_by_a_batch_is_refused() -> None:
    with pytest.raises(NodeIdError, match="batch 1 of the window names node 8 twice"):
        plan_residency(_trace([8], [8, 3, 8]), 2, _empty(2))


def test_a_node_held_by_two_slots_is_refused() -> None:
    with pytest.raises(NodeIdError, match="two slots of the initial cache hold node 6"):
        plan_residency(_trace([6]), 3, np.array([6, -1, 6]))


def test_a_cache_of_another_size_is_refused() -> None:
    with pytest.raises(NodeIdError, match="has 2 slots and the plan 3"):
        plan_residency(_trace([6]), 3, _empty(2))


def test_ids_too_large_to_number_are_refused() -> None:
    with pytest.raises(MemoryBudgetError, match=r"pack\.window"):
        plan_residency(_trace([1 << 62, 5, 3, 4]), 0, _empty(0))


@pytest.mark.parametrize(("num_nodes", "num_slots"), [(200_000, 20_000), (40_000, 40_000)])
def test_planning_stays_within_the_memory_that_the_formula_states(num_nodes: int, num_slots: int) -> None:
    rng = np.random.default_rng(0)
    trace = [rng.permutation(num_nodes)[:20_000] for _ in range(12)]
    plan_residency(trace[:1], 1, _empty(1))  # compiles, which allocates on its own
    tracemalloc.start()
    try:
        plan_residency(trace, num_slots, _empty(num_slots))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= residency_nbytes(240_000, num_slots, len(trace)) + (64 << 10)
