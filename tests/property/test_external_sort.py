"""The external sort agrees with a stable sort in memory, whatever the budget."""

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.errors import MemoryBudgetError
from graphsys.storage.external_sort import ExternalSort, Records, SortBudget


@st.composite
def records(draw: st.DrawFn) -> tuple[Records, tuple[int, ...]]:
    """Return records [C, W] whose last word is their row, and the bounds of their keys."""
    bounds = draw(st.lists(st.sampled_from([1, 3, 64, 10_000, 1 << 40, 1 << 64]), min_size=1, max_size=3))
    num_records = draw(st.integers(0, 6000))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    table = np.empty((num_records, len(bounds) + 1), np.uint64)
    for column, bound in enumerate(bounds):
        skew = draw(st.sampled_from([1, 4, 20]))  # high powers pile the keys up at zero
        table[:, column] = np.minimum((rng.random(num_records) ** skew * float(bound)).astype(np.uint64), bound - 1)
    table[:, -1] = np.arange(num_records)
    return table, tuple(bounds)


def sorted_in_memory(table: Records, num_keys: int) -> Records:
    return table[np.lexsort([table[:, column] for column in range(num_keys - 1, -1, -1)])]


@settings(deadline=None, max_examples=40)
@given(case=records(), bucket_rows=st.sampled_from([600, 1500, 100_000]), buckets=st.sampled_from([2, 3, 16]))
def test_every_budget_gives_the_order_of_a_stable_sort(
    case: tuple[Records, tuple[int, ...]], bucket_rows: int, buckets: int
) -> None:
    table, bounds = case
    budget = SortBudget(bucket_bytes=bucket_rows * table.shape[1] * 8, buffer_bytes=0, max_buckets=buckets)
    with TemporaryDirectory() as folder:
        sort = ExternalSort(Path(folder), key_bounds=bounds, payload_words=1, budget=budget, num_records=len(table))
        for start in range(0, len(table), 700):
            sort.add(table[start : start + 700].copy())
        try:
            blocks = list(sort.blocks())
        except MemoryBudgetError:  # more equal records than a bucket holds
            _, counts = np.unique(table[:, :-1], axis=0, return_counts=True)
            assert counts.max() > bucket_rows
            return
        finally:
            sort.close()
        assert list(Path(folder).iterdir()) == []
    assert all(block.nbytes <= budget.bucket_bytes for block in blocks)
    found = np.concatenate(blocks) if blocks else table
    np.testing.assert_array_equal(found, sorted_in_memory(table, len(bounds)))


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000), known=st.booleans())
def test_records_of_one_word_come_in_ascending_order(seed: int, known: bool) -> None:
    rng = np.random.default_rng(seed)
    keys = (rng.random(20_000) ** 6 * (1 << 44)).astype(np.uint64)
    budget = SortBudget(bucket_bytes=16 << 10, buffer_bytes=0, max_buckets=8)
    with TemporaryDirectory() as folder:
        expected = len(keys) if known else None
        sort = ExternalSort(Path(folder), key_bounds=(1 << 44,), payload_words=0, budget=budget, num_records=expected)
        for start in range(0, len(keys), 1024):
            sort.add(keys[start : start + 1024, None].copy())
        found = np.concatenate(list(sort.blocks()))
    np.testing.assert_array_equal(found[:, 0], np.sort(keys))


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000))
def test_a_group_of_keys_is_never_cut_in_two(seed: int) -> None:
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 900, 4000, dtype=np.uint64)
    budget = SortBudget(bucket_bytes=2 << 10, buffer_bytes=0, max_buckets=4)
    with TemporaryDirectory() as folder:
        sort = ExternalSort(
            Path(folder), key_bounds=(900,), payload_words=0, budget=budget, group=2, num_records=len(keys)
        )
        sort.add(keys[:, None].copy())
        ends = [(int(block[0, 0]) // 2, int(block[-1, 0]) // 2) for block in sort.blocks()]
    assert len(ends) > 10
    assert all(last < first for (_, last), (first, _) in pairwise(ends))


def test_equal_records_beyond_the_budget_are_refused_with_a_budget_that_would_do(tmp_path: Path) -> None:
    budget = SortBudget(bucket_bytes=8 << 10, buffer_bytes=0, max_buckets=4)
    sort = ExternalSort(tmp_path, key_bounds=(100,), payload_words=1, budget=budget)
    sort.add(np.zeros((5000, 2), np.uint64))
    with pytest.raises(MemoryBudgetError, match=r"5000 equal records .* memory: "):
        list(sort.blocks())
    sort.close()
    assert list(tmp_path.iterdir()) == []
