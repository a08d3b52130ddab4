import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsys.report.scale import axis, number


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=5), st.booleans())
def test_an_axis_holds_every_value_and_its_ticks_are_even(values: list[float], zero: bool) -> None:
    found = axis(values, zero=zero)
    tolerance = 1e-6 * max(abs(found.low), abs(found.high))
    assert found.low - tolerance <= min(values)
    assert max(values) <= found.high + tolerance
    assert 2 <= len(found.ticks) <= 9
    step = found.ticks[1] - found.ticks[0]
    assert [b - a for a, b in pairwise(found.ticks)] == pytest.approx([step] * (len(found.ticks) - 1), rel=1e-3)


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_an_axis_of_epochs_has_ticks_at_whole_numbers_between_its_ends(first: int, more: int) -> None:
    found = axis([first, first + more], whole=True)
    assert found.ticks
    assert all(tick == int(tick) and found.low <= tick <= found.high for tick in found.ticks)


def test_bytes_have_ticks_at_round_binary_amounts() -> None:
    assert axis([3 << 30], zero=True, base=1024).ticks == tuple(gib * 2.0**30 for gib in (0, 1, 2, 3))
    assert axis([900 << 20], zero=True, base=1024).ticks == tuple(mib * 2.0**20 for mib in range(0, 1001, 200))


def test_values_that_are_no_numbers_do_not_move_the_axis() -> None:
    assert axis([1.0, math.nan, 2.0, math.inf]) == axis([1.0, 2.0])
    assert axis([]).low < axis([]).high


def test_a_value_lies_between_the_ends_in_proportion() -> None:
    assert axis([0, 10], zero=True).place(2.5, 100, 200) == pytest.approx(125)


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (0.12345, "0.1235"), (12345.6, "12,346"), (math.nan, "nan")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
