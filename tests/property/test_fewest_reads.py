"""The bound that the loader is measured against, against an exhaustive optimum and the residency planner."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphsys.bench.belady import fewest_reads
from graphsys.core.types import NodeIds
from graphsys.storage.residency import plan_residency

TRACES = st.lists(st.frozensets(st.integers(0, 5), max_size=5), min_size=1, max_size=5)


def exhaustive(trace: Sequence[frozenset[int]], num_slots: int) -> int:
    """Try every content of the cache after every batch."""
    cost = {frozenset[int](): 0}
    for nodes in trace:
        after: dict[frozenset[int], int] = {}
        for cache, spent in cost.items():
            known = sorted(cache | nodes)
            for size in range(min(num_slots, len(known)) + 1):
                for kept in map(frozenset, combinations(known, size)):
                    total = spent + len(nodes - cache)
                    after[kept] = min(after.get(kept, total), total)
        cost = after
    return min(cost.values())


def bound(trace: Sequence[NodeIds], num_nodes: int, num_slots: int) -> int:
    return fewest_reads(trace, num_nodes=num_nodes, num_slots=num_slots)


@given(trace=TRACES, num_slots=st.integers(0, 4))
def test_no_cache_content_reads_less_and_one_reads_as_little(trace: list[frozenset[int]], num_slots: int) -> None:
    arrays = [np.array(sorted(nodes), np.int64) for nodes in trace]
    assert bound(arrays, 6, num_slots) == exhaustive(trace, num_slots)


@given(seed=st.integers(0, 1 << 20), num_slots=st.integers(0, 60))
def test_the_planner_reads_exactly_the_bound(seed: int, num_slots: int) -> None:
    rng = np.random.default_rng(seed)
    trace = [rng.choice(80, rng.integers(1, 50), replace=False).astype(np.int64) for _ in range(8)]
    plan = plan_residency(trace, num_slots, np.full(num_slots, -1, np.int64))
    assert sum(batch.fetch_node.shape[0] for batch in plan.batches) == bound(trace, 80, num_slots)
