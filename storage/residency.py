"""Which row lives in which cache slot, and when: Belady's MIN with bypass, planned over a window's access trace.

The trace is known in advance, so the plan is made once, of index arrays; at run time there is no look-up and no
decision. Per batch: rows are gathered first, from slots and from fetched rows; then some fetched rows overwrite slots.

Source:
    Belady 1966, "A study of replacement algorithms for a virtual-storage computer": keep what is used next soonest.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import MemoryBudgetError, NodeIdError
from graphsys.core.types import BatchResidency, NodeIds, ResidencyPlan
from graphsys.storage.jit import njit

Ints = npt.NDArray[np.int32]
Longs = npt.NDArray[np.int64]

_FETCHED = np.iinfo(np.int32).max  # marks a row that no slot holds when its batch is gathered
_ACCESS_NBYTES = 36
_BEFORE, _AFTER, _NEXT_USE, _ENTERED_AT = range(4)  # columns of a slot's state
_SLOT_NBYTES = 64


class _Keys(NamedTuple):
    """Every access of the window and of the batches that follow, ordered by node, then by position."""

    packed: Longs  # [A] node << shift | position, ascending
    shift: int


class _Accesses(NamedTuple):
    """What is known of each access, by position; those of the batches that follow stand last."""

    offset: Longs  # [B + 1] first position of each batch
    batch: Ints  # [A]
    next_use: Ints  # [A] position of the next access to the same node; -1: none
    source: Ints  # [A] ~slot where a slot holds the row, else _FETCHED; at last the row's index among the fetched
    enters: Ints  # [A] slot that the fetched row overwrites; -1: none


class _Slots(NamedTuple):
    """The cache as MIN sees it: slots hang in doubly linked lists by the batch that uses them next.

    With the batches that follow, B are known. List B holds the slots whose node none of them uses again, list B + 1 the
    empty ones.
    """

    head: Ints  # [B + 2] first slot of each list; -1: the list is empty
    state: Ints  # [S, 4] of each slot, side by side, since all four are needed at once:
    # the slot before and the one after in its list,
    # the position of the next access that it will serve (-1: none),
    # and the position whose row entered last (-1: none yet)


class _Counts(NamedTuple):
    """Rows per batch."""

    fetched: Longs  # [B]
    inserted: Longs  # [B]


def residency_nbytes(num_accesses: int, num_slots: int) -> int:
    """Return the most bytes that :func:`plan_residency` holds at once, the trace itself left out.

    Per access: 8 key, 4 batch, 4 source, 4 insertion, and 16 of the plan's own arrays when every row is fetched and
    kept. Per slot: 16 the nodes before and after, 16 list and next use, 32 to look up the nodes it starts with.
    """
    return _ACCESS_NBYTES * num_accesses + _SLOT_NBYTES * num_slots


def plan_residency(
    trace: Sequence[NodeIds], num_slots: int, initial_slot_node: NodeIds, following: Sequence[NodeIds] = ()
) -> ResidencyPlan:
    """Plan a window so that it and the batches behind it fetch as few rows as a cache of ``num_slots`` rows allows.

    A row that is not used again never enters the cache; one that is there already stays until its slot is needed.

    Args:
        trace: per batch [V] int64 global ids, distinct within the batch; each entry is read twice.
        num_slots: rows that the cache holds (S).
        initial_slot_node: [S] int64 global id that each slot holds at the start; -1 is empty.
        following: as ``trace``, the batches after the window: they are not planned, but what they use is kept for them.

    Raises:
        NodeIdError: A batch names a node twice, or two slots hold the same node.
        MemoryBudgetError: The window has more accesses than a plan can number.

    Cost:
        A sort of the A accesses, then O(1) each, and at most B^2 steps over the list heads of B batches.
        :func:`residency_nbytes` of memory. Those of ``following`` count.
    """
    num_batches, num_known = len(trace), len(trace) + len(following)
    offset = np.zeros(num_known + 1, np.int64)
    np.cumsum([nodes.shape[0] for nodes in chain(trace, following)], out=offset[1:])
    keys = _sorted_keys(chain(trace, following), offset)
    accesses = _Accesses(
        offset=offset,
        batch=np.repeat(np.arange(num_known, dtype=np.int32), np.diff(offset)),
        next_use=np.empty(int(offset[-1]), np.int32),
        source=np.full(int(offset[-1]), _FETCHED, np.int32),
        enters=np.full(int(offset[-1]), -1, np.int32),
    )
    _refuse_repeats(keys, accesses, _link_uses(keys, accesses))
    counts = _Counts(np.zeros(num_batches, np.int64), np.zeros(num_batches, np.int64))
    _run_min(accesses, _initial_slots(keys, accesses, initial_slot_node, num_slots), counts)
    accesses = accesses._replace(next_use=np.empty(0, np.int32))  # let go before the plan's arrays are made
    return _assemble(keys, accesses, counts, initial_slot_node)


def _sorted_keys(trace: Iterable[NodeIds], offset: Longs) -> _Keys:
    num_accesses = int(offset[-1])
    shift = max(num_accesses - 1, 1).bit_length()
    packed = np.empty(num_accesses, np.int64)
    for index, nodes in enumerate(trace):
        top = int(nodes.max(initial=0))
        if num_accesses >= _FETCHED or top.bit_length() + shift > 63:
            raise MemoryBudgetError(
                f"a window and what follows, {offset.shape[0] - 1} batches, access {num_accesses} rows of at least "
                f"{top + 1} nodes, more than a plan can number; set pack.window to fewer batches"
            )
        np.left_shift(nodes, shift, out=packed[offset[index] : offset[index + 1]])
    packed |= np.arange(num_accesses, dtype=np.int64)
    packed.sort()
    return _Keys(packed, shift)


def _refuse_repeats(keys: _Keys, accesses: _Accesses, repeated: int) -> None:
    if repeated >= 0:
        node, place = divmod(int(keys.packed[repeated]), 1 << keys.shift)
        raise NodeIdError(
            f"batch {accesses.batch[place]} of the window names node {node} twice; the nodes of a batch are distinct"
        )


def _initial_slots(keys: _Keys, accesses: _Accesses, slot_node: NodeIds, num_slots: int) -> _Slots:
    if slot_node.shape[0] != num_slots:
        raise NodeIdError(f"the initial cache has {slot_node.shape[0]} slots and the plan {num_slots}; they must agree")
    held = np.sort(slot_node[slot_node >= 0])
    twice = np.flatnonzero(held[1:] == held[:-1])
    if twice.size:
        raise NodeIdError(f"two slots of the initial cache hold node {held[twice[0]]}; a node has one slot at most")
    num_batches = accesses.offset.shape[0] - 1
    slots = _Slots(head=np.full(num_batches + 2, -1, np.int32), state=np.full((num_slots, 4), -1, np.int32))
    slots.state[:, _NEXT_USE] = _first_uses(keys, slot_node)
    _seat(accesses, slots, slot_node)
    return slots


def _first_uses(keys: _Keys, slot_node: NodeIds) -> Ints:
    first = np.full(slot_node.shape[0], -1, np.int32)
    if keys.packed.shape[0]:
        order = np.argsort(slot_node)  # searches in ascending order find most of their way in the processor's caches
        node = slot_node[order]
        place = np.searchsorted(keys.packed, node << keys.shift)
        found = keys.packed[np.minimum(place, keys.packed.shape[0] - 1)]
        used = (node >= 0) & (found >> keys.shift == node)
        first[order[used]] = found[used] & ((1 << keys.shift) - 1)
    return first


@njit
def _link_uses(keys: _Keys, accesses: _Accesses) -> int:
    """Fill ``next_use``; return the index of a key whose batch names its node again, or -1."""
    mask = (1 << keys.shift) - 1
    repeated = -1
    for index in range(keys.packed.shape[0]):
        place = keys.packed[index] & mask
        accesses.next_use[place] = -1
        if index + 1 < keys.packed.shape[0]:
            follower = keys.packed[index + 1]
            if follower >> keys.shift == keys.packed[index] >> keys.shift:
                accesses.next_use[place] = follower & mask
                if accesses.batch[follower & mask] == accesses.batch[place]:
                    repeated = index
    return repeated


@njit
def _push(slots: _Slots, slot: int, bucket: int) -> None:
    slots.state[slot, _BEFORE] = -1
    slots.state[slot, _AFTER] = slots.head[bucket]
    if slots.head[bucket] >= 0:
        slots.state[slots.head[bucket], _BEFORE] = slot
    slots.head[bucket] = slot


@njit
def _move(slots: _Slots, slot: int, bucket: int, target: int) -> None:
    before, after = slots.state[slot, _BEFORE], slots.state[slot, _AFTER]
    if before >= 0:
        slots.state[before, _AFTER] = after
    else:
        slots.head[bucket] = after
    if after >= 0:
        slots.state[after, _BEFORE] = before
    _push(slots, slot, target)


@njit
def _seat(accesses: _Accesses, slots: _Slots, slot_node: NodeIds) -> None:
    """Hang every slot into its list before the first batch."""
    num_batches = accesses.offset.shape[0] - 1
    for slot in range(slot_node.shape[0]):
        use = slots.state[slot, _NEXT_USE]
        if use >= 0:
            accesses.source[use] = ~slot
            _push(slots, slot, accesses.batch[use])
        else:
            _push(slots, slot, num_batches if slot_node[slot] >= 0 else num_batches + 1)


@njit
def _run_min(accesses: _Accesses, slots: _Slots, counts: _Counts) -> None:
    """Fill ``source`` and ``enters`` by simulating MIN batch by batch."""
    top = accesses.offset.shape[0]  # no list behind this one holds a slot
    for batch in range(counts.fetched.shape[0]):
        # Hits first: their next use decides which slots the fetched rows of this batch may take.
        top = max(top, _keep_hits(accesses, slots, counts, batch))
        top = _enter_rows(accesses, slots, counts, batch, top)


@njit
def _keep_hits(accesses: _Accesses, slots: _Slots, counts: _Counts, batch: int) -> int:
    """Hang the slots that serve ``batch`` by their following use; count the other rows; return the last list used."""
    num_batches = accesses.offset.shape[0] - 1
    last = 0
    for place in range(accesses.offset[batch], accesses.offset[batch + 1]):
        if accesses.source[place] == _FETCHED:
            counts.fetched[batch] += 1
            continue
        slot, use = ~accesses.source[place], accesses.next_use[place]
        target = num_batches
        if use >= 0:
            target = accesses.batch[use]
            accesses.source[use] = ~slot
        slots.state[slot, _NEXT_USE] = use
        _move(slots, slot, batch, target)
        last = max(last, target)
    return last


@njit
def _enter_rows(accesses: _Accesses, slots: _Slots, counts: _Counts, batch: int, top: int) -> int:
    """Let fetched rows of ``batch`` take the slots that are needed later than they are; return the last list used."""
    start = accesses.offset[batch]
    for place in range(start, accesses.offset[batch + 1]):
        use = accesses.next_use[place]
        if accesses.source[place] != _FETCHED or use < 0:
            continue
        while top > batch and slots.head[top] < 0:
            top -= 1
        target = accesses.batch[use]
        if top <= target:
            continue  # every slot is needed at least as soon as this row: it passes by
        slot = slots.head[top]
        if slots.state[slot, _NEXT_USE] >= 0:
            accesses.source[slots.state[slot, _NEXT_USE]] = _FETCHED
        if slots.state[slot, _ENTERED_AT] >= start:
            accesses.enters[
                slots.state[slot, _ENTERED_AT]
            ] = -1  # a row of this very batch gives way before it ever entered
        else:
            counts.inserted[batch] += 1
        _move(slots, slot, top, target)
        slots.state[slot, _NEXT_USE] = use
        slots.state[slot, _ENTERED_AT] = place
        accesses.source[use] = ~slot
        accesses.enters[place] = slot
    return top


def _assemble(keys: _Keys, accesses: _Accesses, counts: _Counts, initial_slot_node: NodeIds) -> ResidencyPlan:
    """Number the fetched rows of each batch by ascending id, and cut the arrays into batches."""
    plan = _Arrays(
        fetch_offset=_offsets(counts.fetched),
        insert_offset=_offsets(counts.inserted),
        fetch_node=np.empty(int(counts.fetched.sum()), np.int64),
        insert_row=np.empty(int(counts.inserted.sum()), np.int32),
        insert_slot=np.empty(int(counts.inserted.sum()), np.int32),
    )
    _number_rows(keys, accesses, plan)
    batches = tuple(_cut(accesses, plan, index) for index in range(counts.fetched.shape[0]))
    final = initial_slot_node.copy()
    for batch in batches:
        final[batch.insert_slot] = batch.fetch_node[batch.insert_row]
    return ResidencyPlan(
        num_slots=initial_slot_node.shape[0],
        initial_slot_node=initial_slot_node.copy(),
        final_slot_node=final,
        batches=batches,
    )


class _Arrays(NamedTuple):
    """The plan's lists, one batch behind the other."""

    fetch_offset: Longs  # [B + 1]
    insert_offset: Longs  # [B + 1]
    fetch_node: NodeIds
    insert_row: Ints
    insert_slot: Ints


def _offsets(counts: Longs) -> Longs:
    offset = np.zeros(counts.shape[0] + 1, np.int64)
    np.cumsum(counts, out=offset[1:])
    return offset


def _cut(accesses: _Accesses, plan: _Arrays, index: int) -> BatchResidency:
    fetched = slice(plan.fetch_offset[index], plan.fetch_offset[index + 1])
    inserted = slice(plan.insert_offset[index], plan.insert_offset[index + 1])
    return BatchResidency(
        source=accesses.source[accesses.offset[index] : accesses.offset[index + 1]],
        fetch_node=plan.fetch_node[fetched],
        insert_row=plan.insert_row[inserted],
        insert_slot=plan.insert_slot[inserted],
    )


@njit
def _number_rows(keys: _Keys, accesses: _Accesses, plan: _Arrays) -> None:
    # The keys ascend by node, so each batch meets its rows in the order in which they are fetched.
    mask = (1 << keys.shift) - 1
    fetched, inserted = plan.fetch_offset.copy(), plan.insert_offset.copy()
    for index in range(keys.packed.shape[0]):
        place = keys.packed[index] & mask
        batch = accesses.batch[place]
        if batch >= fetched.shape[0] - 1 or accesses.source[place] != _FETCHED:
            continue
        row = fetched[batch] - plan.fetch_offset[batch]
        plan.fetch_node[fetched[batch]] = keys.packed[index] >> keys.shift
        fetched[batch] += 1
        accesses.source[place] = row
        if accesses.enters[place] >= 0:
            plan.insert_row[inserted[batch]] = row
            plan.insert_slot[inserted[batch]] = accesses.enters[place]
            inserted[batch] += 1
