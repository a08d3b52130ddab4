"""Which row lives in which cache slot, and when: Belady's MIN with bypass, planned over a window's access trace.

The trace is known in advance, so the plan is made once, of index arrays; at run time there is no look-up and no
decision. Per batch: rows are gathered first, from slots and from fetched rows; then some fetched rows overwrite slots.

A node's row is wanted from one access to the next, and a cache that keeps it all that while serves the next. After each
batch MIN keeps what ends soonest. That depends on the two batches alone, so it is worked out on the numbers of rows per
pair of batches; which rows of a pair are kept does not matter. A row that would give way before its next use never
enters.

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

_MOST_ACCESSES = np.iinfo(np.int32).max
_ACCESS_NBYTES = 30
_SLOT_NBYTES = 64
_PAIR_NBYTES = 4


class _Keys(NamedTuple):
    """Every access of the window and of the batches that follow, ordered by node, then by batch."""

    packed: Longs  # [A] node << node_shift | batch << batch_shift | place in the batch, ascending
    node_shift: int
    batch_shift: int
    num_batches: int  # of the window


class _Held(NamedTuple):
    """What the cache holds at the start, by ascending node, and behind it a node that no batch names."""

    node: NodeIds  # [H + 1]
    slot: Ints  # [H]


class _Counts(NamedTuple):
    """Rows per batch of the window, and at the start."""

    fetched: Longs  # [B + 1] by batch; what the batches that follow fetch is counted last, together
    entered: Longs  # [B + 1] by batch + 1; 0: rows of the cache that are kept from the start
    left: Longs  # [B + 1] by batch: rows that it uses last; those that stay to the end are counted last


class _Stays(NamedTuple):
    """The stays of rows in slots, numbered by node and then by batch."""

    slot: Ints  # [R]
    by_entry: Ints  # [R] ordered by the batch behind which the row enters, those of the start first
    by_exit: Ints  # [R] ordered by the batch that uses the row last


class _Lists(NamedTuple):
    """The plan's lists, one batch behind the other."""

    source: Ints
    fetch_node: NodeIds
    insert_row: Ints
    insert_slot: Ints
    offset: Longs  # [3, B + 1] where each batch begins: of source, of fetched rows, of those that enter


def residency_nbytes(num_accesses: int, num_slots: int, num_batches: int) -> int:
    """Return the most bytes that :func:`plan_residency` holds at once, the trace itself left out.

    Per access: 8 key, 4 the stay that serves it, 4 source; then 8 for one that is fetched, or half of 28 where every
    fetched row stays for one more access: its node, its slot, its place among those that enter and leave, and what the
    plan says of it. Per slot: the nodes before and after, and in order. Per pair of batches: how many rows
    stay from the one to the other.

    Args:
        num_accesses: rows of all batches, those that follow included (A).
        num_slots: rows that the cache holds (S).
        num_batches: those that follow included.
    """
    return _ACCESS_NBYTES * num_accesses + _SLOT_NBYTES * num_slots + _PAIR_NBYTES * (num_batches + 1) ** 2


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
        A sort of the A accesses, four passes over them in that order, and B^2 steps for B batches.
        :func:`residency_nbytes` of memory. Those of ``following`` count.
    """
    num_batches, num_known = len(trace), len(trace) + len(following)
    sizes = np.array([nodes.shape[0] for nodes in chain(trace, following)], np.int64)
    held = _initial_rows(initial_slot_node, num_slots)
    keys = _sorted_keys(chain(trace, following), sizes, num_batches)
    stay = np.empty(keys.packed.shape[0], np.int32)
    pairs = np.zeros((num_batches + 1, num_known), np.int32)
    _refuse_repeats(keys, _count_pairs(keys, held, stay, pairs))
    _keep_soonest(pairs, num_slots)
    counts = _Counts(*(np.zeros(num_batches + 1, np.int64) for _ in _Counts._fields))
    _number_stays(keys, stay, pairs, counts)
    slot = _seat(keys, stay, counts, held, initial_slot_node)
    return _assemble(keys, stay, slot, counts, sizes, initial_slot_node)


def _initial_rows(slot_node: NodeIds, num_slots: int) -> _Held:
    if slot_node.shape[0] != num_slots:
        raise NodeIdError(f"the initial cache has {slot_node.shape[0]} slots and the plan {num_slots}; they must agree")
    slot = np.argsort(slot_node).astype(np.int32)
    slot = slot[np.count_nonzero(slot_node < 0) :]
    node = np.append(slot_node[slot], np.iinfo(np.int64).max)
    twice = np.flatnonzero(node[1:] == node[:-1])
    if twice.size:
        raise NodeIdError(f"two slots of the initial cache hold node {node[twice[0]]}; a node has one slot at most")
    return _Held(node, slot)


def _sorted_keys(trace: Iterable[NodeIds], sizes: Longs, num_batches: int) -> _Keys:
    num_accesses = int(sizes.sum())
    place = np.arange(sizes.max(initial=0), dtype=np.int64)
    batch_shift = max(place.shape[0] - 1, 1).bit_length()
    node_shift = batch_shift + max(sizes.shape[0] - 1, 1).bit_length()
    packed = np.empty(num_accesses, np.int64)
    start = 0
    for index, nodes in enumerate(trace):
        top = int(nodes.max(initial=0))
        if num_accesses >= _MOST_ACCESSES or top.bit_length() + node_shift > 63:
            raise MemoryBudgetError(
                f"a window and what follows, {sizes.shape[0]} batches, access {num_accesses} rows of at least "
                f"{top + 1} nodes, more than a plan can number; set pack.window to fewer batches"
            )
        part = packed[start : start + nodes.shape[0]]
        np.left_shift(nodes, node_shift, out=part)
        part |= place[: nodes.shape[0]]
        part |= index << batch_shift
        start += nodes.shape[0]
    packed.sort()
    return _Keys(packed, node_shift, batch_shift, num_batches)


def _refuse_repeats(keys: _Keys, repeated: int) -> None:
    if repeated >= 0:
        key = int(keys.packed[repeated])
        batch = key % (1 << keys.node_shift) >> keys.batch_shift
        raise NodeIdError(
            f"batch {batch} of the window names node {key >> keys.node_shift} twice; the nodes of a batch are distinct"
        )


@njit
def _batch_of(keys: _Keys, index: int) -> int:
    batch: int = (keys.packed[index] & ((1 << keys.node_shift) - 1)) >> keys.batch_shift
    return batch


@njit
def _count_pairs(keys: _Keys, held: _Held, since: Ints, pairs: Ints) -> int:
    """Count, by where its row may be kept from and by batch, every access whose row may be in the cache.

    Args:
        since: [A] is filled with the row of ``pairs`` that counts the access; -1: none does.
        pairs: [B + 1, known batches] row 0 counts rows of the cache at the start, row b + 1 those last used by batch b.

    Returns:
        The index of a key whose batch names its node once more, or -1.
    """
    repeated, at = -1, 0
    node, batch = -1, -1
    for index in range(keys.packed.shape[0]):
        before, last = node, batch
        node, batch = keys.packed[index] >> keys.node_shift, _batch_of(keys, index)
        row = -1
        if node != before:
            while held.node[at] < node:
                at += 1
            if held.node[at] == node:
                row = 0
        elif batch == last:
            repeated = index
        elif last < keys.num_batches:
            row = last + 1
        since[index] = row
        if row >= 0:
            pairs[row, batch] += 1
    return repeated


def _keep_soonest(pairs: Ints, num_slots: int) -> None:
    """Make of the numbers of rows that may be kept, by pair of batches, the numbers that MIN keeps to the end.

    After each batch the ``num_slots`` rows stay that are used soonest; of equally soon ones those that came first.
    """
    for row in range(1, pairs.shape[0]):
        # Row r counts rows last used by batch r - 1; with those that were kept before, as many as there are slots stay.
        kept = np.cumsum(pairs[row - 1, row:] + pairs[row, row:], dtype=np.int64)
        pairs[row, row:] = np.diff(np.minimum(kept, num_slots), prepend=0)
    for row in range(pairs.shape[0] - 2, -1, -1):
        # What is there now stays to its end as far as it is still there after every later batch.
        np.minimum(pairs[row, row + 1 :], pairs[row + 1, row + 1 :], out=pairs[row, row + 1 :])
    for row in range(pairs.shape[0] - 1, 0, -1):
        pairs[row, row:] -= pairs[row - 1, row:]


@njit
def _number_stays(keys: _Keys, stay: Ints, pairs: Ints, counts: _Counts) -> None:
    """Put in place of each access's row of ``pairs`` the stay that serves it, or -1; use ``pairs`` up."""
    number = -1
    for index in range(keys.packed.shape[0]):
        row, batch = stay[index], _batch_of(keys, index)
        if row < 0 or pairs[row, batch] == 0:
            stay[index] = -1
            counts.fetched[min(batch, keys.num_batches)] += 1
            continue
        pairs[row, batch] -= 1
        if row > 0 and stay[index - 1] >= 0:  # it is there already, and stays on
            counts.left[row - 1] -= 1
        else:
            number += 1
            counts.entered[row] += 1
        counts.left[min(batch, keys.num_batches)] += 1
        stay[index] = number


def _seat(keys: _Keys, stay: Ints, counts: _Counts, held: _Held, slot_node: NodeIds) -> Ints:
    """Return the slot of every stay."""
    num_stays = int(counts.entered.sum())
    stays = _Stays(*(np.empty(num_stays, np.int32) for _ in _Stays._fields))
    entry, leave = _offsets(counts.entered), _offsets(counts.left)
    _order_stays(keys, stay, held, stays, entry.copy(), leave.copy())
    taken = np.zeros(slot_node.shape[0], np.bool_)
    taken[stays.slot[stays.by_entry[: entry[1]]]] = True
    stale, empty = np.flatnonzero(~taken & (slot_node >= 0)), np.flatnonzero(slot_node < 0)
    free = np.empty(slot_node.shape[0], np.int32)
    num_free = stale.shape[0] + empty.shape[0]
    free[:num_free] = np.concatenate([stale, empty])  # the last is taken first
    _take_slots(stays, entry, leave, free, num_free)
    return stays.slot


@njit
def _order_stays(keys: _Keys, stay: Ints, held: _Held, stays: _Stays, entry: Longs, leave: Longs) -> None:
    """Fill both orders of ``stays``, and the slots of those that begin at the start; move the offsets on."""
    at = 0
    for index in range(keys.packed.shape[0]):
        number, batch = stay[index], _batch_of(keys, index)
        if number < 0:
            continue
        node = keys.packed[index] >> keys.node_shift
        if index == 0 or keys.packed[index - 1] >> keys.node_shift != node:
            while held.node[at] < node:
                at += 1
            stays.slot[number] = held.slot[at]
            stays.by_entry[entry[0]] = number
            entry[0] += 1
        elif stay[index - 1] < 0:
            row = _batch_of(keys, index - 1) + 1
            stays.by_entry[entry[row]] = number
            entry[row] += 1
        if index + 1 == keys.packed.shape[0] or stay[index + 1] != number:
            row = min(batch, keys.num_batches)
            stays.by_exit[leave[row]] = number
            leave[row] += 1


@njit
def _take_slots(stays: _Stays, entry: Longs, leave: Longs, free: Ints, num_free: int) -> None:
    """Give each stay that begins in the window a slot: one that nothing is kept in at that time."""
    for batch in range(entry.shape[0] - 2):
        for number in stays.by_exit[leave[batch] : leave[batch + 1]]:
            free[num_free] = stays.slot[number]
            num_free += 1
        for number in stays.by_entry[entry[batch + 1] : entry[batch + 2]]:
            num_free -= 1
            stays.slot[number] = free[num_free]


def _assemble(
    keys: _Keys, stay: Ints, slot: Ints, counts: _Counts, sizes: Longs, initial_slot_node: NodeIds
) -> ResidencyPlan:
    """Number the fetched rows of each batch by ascending id, and cut the arrays into batches."""
    num_batches = keys.num_batches
    offset = np.stack([_offsets(part) for part in (sizes[:num_batches], counts.fetched[:-1], counts.entered[1:])])
    lists = _Lists(
        source=np.empty(int(offset[0, -1]), np.int32),
        fetch_node=np.empty(int(offset[1, -1]), np.int64),
        insert_row=np.empty(int(offset[2, -1]), np.int32),
        insert_slot=np.empty(int(offset[2, -1]), np.int32),
        offset=offset,
    )
    _fill_lists(keys, stay, slot, lists, offset.copy())
    batches = tuple(_cut(lists, index) for index in range(num_batches))
    final = initial_slot_node.copy()
    for batch in batches:
        final[batch.insert_slot] = batch.fetch_node[batch.insert_row]
    return ResidencyPlan(
        num_slots=initial_slot_node.shape[0],
        initial_slot_node=initial_slot_node.copy(),
        final_slot_node=final,
        batches=batches,
    )


def _offsets(counts: Longs) -> Longs:
    offset = np.zeros(counts.shape[0] + 1, np.int64)
    np.cumsum(counts, out=offset[1:])
    return offset


def _cut(lists: _Lists, index: int) -> BatchResidency:
    used, fetched, entered = (slice(starts[index], starts[index + 1]) for starts in lists.offset)
    return BatchResidency(
        source=lists.source[used],
        fetch_node=lists.fetch_node[fetched],
        insert_row=lists.insert_row[entered],
        insert_slot=lists.insert_slot[entered],
    )


@njit
def _fill_lists(keys: _Keys, stay: Ints, slot: Ints, lists: _Lists, after: Longs) -> None:
    # The keys ascend by node, so each batch meets its rows in the order in which they are fetched.
    place = (1 << keys.batch_shift) - 1
    for index in range(keys.packed.shape[0]):
        batch = _batch_of(keys, index)
        if batch >= keys.num_batches:
            continue
        access = lists.offset[0, batch] + (keys.packed[index] & place)
        if stay[index] >= 0:
            lists.source[access] = ~slot[stay[index]]
            continue
        node, fetched = keys.packed[index] >> keys.node_shift, after[1, batch]
        row = fetched - lists.offset[1, batch]
        after[1, batch] += 1
        lists.source[access] = row
        lists.fetch_node[fetched] = node
        follower = index + 1
        if follower == keys.packed.shape[0] or keys.packed[follower] >> keys.node_shift != node or stay[follower] < 0:
            continue
        lists.insert_row[after[2, batch]] = row
        lists.insert_slot[after[2, batch]] = slot[stay[follower]]
        after[2, batch] += 1
