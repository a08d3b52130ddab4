from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.seeding import GOLDEN, MASK64, mix64
from graphsys.storage.random import (
    BELL_STD,
    bell,
    bounded,
    draw,
    draw_rank,
    permutation,
    permute,
    power_law,
    unpermute,
)

words = st.integers(0, MASK64)


@settings(deadline=None)
@given(key=words, counter=words)
def test_a_draw_is_the_splitmix64_finaliser_of_key_and_counter(key: int, counter: int) -> None:
    expected = mix64((key + (counter + 1) * GOLDEN) & MASK64)
    assert int(draw(np.uint64(key), np.uint64(counter))) == expected


@settings(deadline=None)
@given(word=words, size=st.integers(1, MASK64))
def test_bounded_is_the_upper_half_of_the_product(word: int, size: int) -> None:
    assert int(bounded(np.uint64(word), np.uint64(size))) == (word * size) >> 64


@settings(deadline=None)
@given(word=words)
def test_bell_sums_four_centred_fields(word: int) -> None:
    fields = [(word >> shift) & 0xFFFF for shift in (0, 16, 32, 48)]
    assert int(bell(np.uint64(word))) == sum(fields) - 131070


def test_bell_values_have_the_named_mean_and_standard_deviation() -> None:
    values = np.array([bell(np.uint64(draw(np.uint64(1), np.uint64(i)))) for i in range(20_000)])
    assert abs(values.mean()) < 0.03 * BELL_STD
    assert values.std() == pytest.approx(BELL_STD, rel=0.02)


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 2000), key=words)
def test_a_permutation_sends_every_value_to_a_place_of_its_own_and_back(size: int, key: int) -> None:
    mapping = permutation(size, key)
    places = [int(permute(mapping, np.uint64(value))) for value in range(size)]
    assert sorted(places) == list(range(size))
    assert [int(unpermute(mapping, np.uint64(place))) for place in places] == list(range(size))


@settings(deadline=None)
@given(size=st.integers(1 << 32, 1 << 60), key=words, data=st.data())
def test_a_permutation_of_a_huge_range_is_undone_by_its_inverse(size: int, key: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, size - 1))
    mapping = permutation(size, key)
    place = int(permute(mapping, np.uint64(value)))
    assert place < size
    assert int(unpermute(mapping, np.uint64(place))) == value


@settings(deadline=None, max_examples=40)
@given(size=st.integers(1, 1 << 40), decay=st.decimals("0.1", "0.95", places=3))
def test_power_law_buckets_cover_every_rank_once_in_few_entries(size: int, decay: Decimal) -> None:
    table = power_law(size, decay)
    ends = table.starts + table.sizes
    assert int(table.starts[0]) == 0
    assert int(ends[-1]) == size
    assert np.array_equal(ends[:-1], table.starts[1:])
    assert np.all(np.diff(table.thresholds.astype(object)) > 0)
    assert table.thresholds.shape[0] <= 16 * (size.bit_length() + 1)


def test_low_ranks_are_drawn_as_often_as_the_power_law_says() -> None:
    table = power_law(1000, Decimal("0.5"))
    ranks = np.array([draw_rank(table, np.uint64(9), np.uint64(2 * i)) for i in range(40_000)], np.int64)
    weight = (np.arange(1000) + 1.0) ** -0.5
    expected = weight / weight.sum()
    assert ranks.max() < 1000
    for rank in (0, 1, 3):
        assert np.mean(ranks == rank) == pytest.approx(expected[rank], rel=0.15)
    assert np.mean(ranks >= 500) == pytest.approx(expected[500:].sum(), rel=0.03)
