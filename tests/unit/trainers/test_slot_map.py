"""Rows stay where they are when a window numbers its slots anew."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.types import NodeIds
from graphsys.trainers.slot_map import SlotMap


def test_slots_are_places_until_rows_lie_elsewhere() -> None:
    slots = SlotMap(3)
    node, place = slots.enter(np.array([7, -1, 5]))
    assert (node.tolist(), place.tolist()) == ([5, 7], [2, 0])
    source = np.array([0, ~2, 1, ~0], np.int32)
    assert slots.sources(source) is source
    node, place = slots.enter(np.array([5, 7, -1]))
    assert node.size == place.size == 0
    assert slots.places(np.array([0, 1], np.int32)).tolist() == [2, 0]
    assert slots.sources(source).tolist() == [0, ~1, 1, ~2]


def test_a_row_that_no_slot_names_is_forgotten() -> None:
    slots = SlotMap(2)
    slots.enter(np.array([4, 9]))
    node, _ = slots.enter(np.array([-1, 9]))
    assert node.size == 0
    assert slots.held.tolist() == [-1, 9]
    node, place = slots.enter(np.array([9, 4]))
    assert (node.tolist(), place.tolist()) == ([4], [0])


@st.composite
def contents(draw: st.DrawFn) -> list[NodeIds]:
    """What a cache of some slots is to hold at one window after the other."""
    num_slots = draw(st.integers(0, 6))
    slots = st.lists(st.integers(0, 8), unique=True, max_size=num_slots).flatmap(
        lambda ids: st.permutations(ids + [-1] * (num_slots - len(ids)))
    )
    return [np.array(wanted, np.int64) for wanted in draw(st.lists(slots, min_size=1, max_size=5))]


@settings(max_examples=200, deadline=None)
@given(windows=contents(), data=st.data())
def test_every_slot_names_its_row_and_only_rows_that_are_lacking_are_asked_for(
    windows: list[NodeIds], data: st.DataObject
) -> None:
    slots = SlotMap(windows[0].size)
    rows = np.full(windows[0].size, -1, np.int64)  # a cache whose rows are ids
    for wanted in windows:
        before = set(slots.held.tolist())
        node, place = slots.enter(wanted)
        assert node.tolist() == sorted(set(wanted[wanted >= 0].tolist()) - before)
        rows[place] = node
        slot = np.arange(wanted.size, dtype=np.int32)
        assert (rows[slots.places(slot)] == wanted)[wanted >= 0].all()
        assert np.array_equal(~slots.sources(~slot), slots.places(slot))
        assert sorted(slots.places(slot).tolist()) == slot.tolist()
        entering = np.array(data.draw(st.lists(st.sampled_from(slot.tolist()), unique=True)) if slot.size else [], int)
        fresh = np.arange(10, 10 + entering.size)
        rows[slots.places(entering.astype(np.int32))] = fresh
        slots.put(entering.astype(np.int32), fresh)
        held = slots.held
        assert np.array_equal(held[held >= 0], rows[held >= 0])
        assert np.unique(held[held >= 0]).size == (held >= 0).sum()
