"""Residency plans against an exhaustive optimum and a slow simulation."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.types import NodeIds, ResidencyPlan
from graphsys.storage.residency import plan_residency

EMPTY = -1


def fewest_fetches(trace: Sequence[frozenset[int]], num_slots: int, held: frozenset[int]) -> int:
    """Try every content of the cache after every batch."""
    cost = {held: 0}
    for nodes in trace:
        after: dict[frozenset[int], int] = {}
        for cache, spent in cost.items():
            total = spent + len(nodes - cache)
            known = sorted(cache | nodes)
            for size in range(min(num_slots, len(known)) + 1):
                for kept in map(frozenset, combinations(known, size)):
                    after[kept] = min(after.get(kept, total), total)
        cost = after
    return min(cost.values())


def fetches_of_slow_min(trace: Sequence[frozenset[int]], num_slots: int, held: frozenset[int]) -> int:
    """Keep, after each batch, the nodes that are used next soonest."""
    cache, fetched = set(held), 0
    for index, nodes in enumerate(trace):
        fetched += len(nodes - cache)

        def next_use(node: int, index: int = index) -> int:
            return next((later for later in range(index + 1, len(trace)) if node in trace[later]), len(trace))

        cache = set(sorted(cache | nodes, key=next_use)[:num_slots])
    return fetched


def execute(trace: Sequence[NodeIds], plan: ResidencyPlan) -> int:
    """Run the plan on a cache that stores node ids; check each row, return how many were fetched."""
    slots = plan.initial_slot_node.copy()
    for nodes, batch in zip(trace, plan.batches, strict=True):
        assert (np.diff(batch.fetch_node) > 0).all()
        assert np.unique(batch.insert_slot).size == batch.insert_slot.size
        hit = batch.source < 0
        found = np.empty_like(nodes)
        found[hit] = slots[~batch.source[hit]]
        found[~hit] = batch.fetch_node[batch.source[~hit]]
        assert np.array_equal(found, nodes)
        assert np.unique(batch.source).size == nodes.size
        slots[batch.insert_slot] = batch.fetch_node[batch.insert_row]
    assert np.array_equal(slots, plan.final_slot_node)
    held = slots[slots != EMPTY]
    assert np.unique(held).size == held.size
    return sum(batch.fetch_node.size for batch in plan.batches)


@st.composite
def cases(draw: st.DrawFn, *, num_nodes: int, num_batches: int, num_slots: int) -> tuple[list[NodeIds], NodeIds]:
    """A trace of distinct nodes per batch, and what the slots hold at its start."""
    ids = st.integers(0, num_nodes - 1)
    batches = draw(st.lists(st.lists(ids, unique=True, max_size=num_nodes), max_size=num_batches))
    held = draw(st.lists(ids, unique=True, max_size=num_slots))
    slots = draw(st.permutations(held + [EMPTY] * draw(st.integers(0, num_slots - len(held)))))
    spread = draw(st.sampled_from([1, 1 << 33]))  # ids beyond 32 bits too
    trace = [np.array(batch, np.int64) * spread for batch in batches]
    initial = np.array(slots, np.int64)
    return trace, np.where(initial >= 0, initial * spread, EMPTY)


def _sets(trace: Sequence[NodeIds], initial: NodeIds) -> tuple[list[frozenset[int]], frozenset[int]]:
    return [frozenset(nodes.tolist()) for nodes in trace], frozenset(initial[initial >= 0].tolist())


@settings(max_examples=150, deadline=None)
@given(case=cases(num_nodes=5, num_batches=5, num_slots=3))
def test_no_cache_of_that_size_fetches_fewer_rows(case: tuple[list[NodeIds], NodeIds]) -> None:
    trace, initial = case
    plan = plan_residency(trace, initial.size, initial)
    nodes, held = _sets(trace, initial)
    assert execute(trace, plan) == fewest_fetches(nodes, initial.size, held)


@settings(max_examples=150, deadline=None)
@given(case=cases(num_nodes=30, num_batches=25, num_slots=12))
def test_a_plan_fetches_as_few_rows_as_slow_min_and_always_finds_the_right_node(
    case: tuple[list[NodeIds], NodeIds],
) -> None:
    trace, initial = case
    plan = plan_residency(trace, initial.size, initial)
    nodes, held = _sets(trace, initial)
    assert execute(trace, plan) == fetches_of_slow_min(nodes, initial.size, held)


@settings(max_examples=100, deadline=None)
@given(case=cases(num_nodes=20, num_batches=12, num_slots=8), cut=st.integers(0, 12))
def test_a_window_starts_with_what_the_one_before_left(case: tuple[list[NodeIds], NodeIds], cut: int) -> None:
    trace, initial = case
    first = plan_residency(trace[:cut], initial.size, initial)
    second = plan_residency(trace[cut:], initial.size, first.final_slot_node)
    execute(trace[:cut], first)
    execute(trace[cut:], second)


@settings(max_examples=100, deadline=None)
@given(case=cases(num_nodes=20, num_batches=12, num_slots=8))
def test_a_row_that_the_window_does_not_use_again_never_enters(case: tuple[list[NodeIds], NodeIds]) -> None:
    trace, initial = case
    plan = plan_residency(trace, initial.size, initial)
    for index, batch in enumerate(plan.batches):
        later = {int(node) for nodes in trace[index + 1 :] for node in nodes}
        assert set(batch.fetch_node[batch.insert_row].tolist()) <= later


@settings(max_examples=150, deadline=None)
@given(case=cases(num_nodes=5, num_batches=5, num_slots=3), cut=st.integers(0, 5))
def test_windows_that_know_what_follows_fetch_together_as_few_rows_as_one(
    case: tuple[list[NodeIds], NodeIds], cut: int
) -> None:
    trace, initial = case
    first = plan_residency(trace[:cut], initial.size, initial, trace[cut:])
    second = plan_residency(trace[cut:], initial.size, first.final_slot_node)
    nodes, held = _sets(trace, initial)
    assert execute(trace[:cut], first) + execute(trace[cut:], second) == fewest_fetches(nodes, initial.size, held)


@settings(max_examples=100, deadline=None)
@given(case=cases(num_nodes=20, num_batches=12, num_slots=8), cut=st.integers(0, 12))
def test_a_row_that_nothing_known_uses_again_never_enters(case: tuple[list[NodeIds], NodeIds], cut: int) -> None:
    trace, initial = case
    plan = plan_residency(trace[:cut], initial.size, initial, trace[cut:])
    assert len(plan.batches) == min(cut, len(trace))
    for index, batch in enumerate(plan.batches):
        later = {int(node) for nodes in trace[index + 1 :] for node in nodes}
        assert set(batch.fetch_node[batch.insert_row].tolist()) <= later
