"""The distinct integers of a stream in ascending order, inside a budget."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds
from graphsys.storage.external_sort import ExternalSort, SortBudget
from graphsys.storage.jit import njit
from graphsys.storage.rank_index import Words, set_bits

Keys = npt.NDArray[np.uint64]

_SIGN = np.uint64(1 << 63)
_FIRST_BITS = 1 << 20


def distinct_integers(chunks: Callable[[], Iterator[NodeIds]], spill: Path, memory: int) -> Iterator[NodeIds]:
    """Yield the distinct integers of all chunks, ascending, in pieces.

    Small ones are marked in a bit set; when they are negative or too large for it, they are sorted instead.

    Args:
        chunks: Starts from the beginning on every call.
        spill: Folder for temporary files; the caller removes it.
        memory: Bytes that may be used.
    """
    bits = _mark(chunks(), 4 * memory)  # bits in half the budget, for they are copied when they grow
    if bits is not None:
        yield from _members(bits)
        return
    yield from _sorted(chunks(), spill, memory)


def _mark(chunks: Iterator[NodeIds], max_bits: int) -> Words | None:
    """Return the bit set of all integers, None when one is negative or ``max_bits`` or more."""
    bits = np.zeros(_FIRST_BITS // 64, np.uint64)
    for ids in chunks:
        if ids.shape[0] == 0:
            continue
        high = int(ids.max())
        if int(ids.min()) < 0 or high >= max_bits:
            return None
        if high >= 64 * bits.shape[0]:
            # Doubled, so that growing costs little.
            grown = np.zeros(min(max(2 * bits.shape[0], high // 64 + 1), max_bits // 64 + 1), np.uint64)
            grown[: bits.shape[0]] = bits
            bits = grown
        set_bits(ids, 0, bits)
    return bits


def _members(bits: Words) -> Iterator[NodeIds]:
    step = _FIRST_BITS // 64
    for first in range(0, bits.shape[0], step):
        flags = np.unpackbits(bits[first : first + step].view(np.uint8), bitorder="little")
        found = np.flatnonzero(flags)
        if found.size:
            yield found + 64 * first


def _sorted(chunks: Iterator[NodeIds], spill: Path, memory: int) -> Iterator[NodeIds]:
    keys = (_distinct(ids.view(np.uint64) ^ _SIGN) for ids in chunks)  # unsigned order is signed order
    held: list[Keys] = []
    nbytes = 0
    for found in keys:
        held.append(found)
        nbytes += found.nbytes
        if nbytes > memory // 4:
            held = [_distinct(np.concatenate(held))]
            nbytes = held[0].nbytes
            if nbytes > memory // 8:  # little was repeated: they will not fit
                break
    else:
        if held:
            yield (_distinct(np.concatenate(held)) ^ _SIGN).view(np.int64)
        return
    yield from _spilled(itertools.chain(held, keys), spill, memory)


def _spilled(keys: Iterator[Keys], spill: Path, memory: int) -> Iterator[NodeIds]:
    spill.mkdir(parents=True, exist_ok=True)
    sort = ExternalSort(spill, key_bounds=(1 << 64,), payload_words=0, budget=SortBudget.within(memory, 1))
    try:
        for found in keys:
            sort.add(found[:, None])
        for block in sort.blocks():
            # Equal keys lie in one block.
            yield (_without_repeats(block[:, 0]) ^ _SIGN).view(np.int64)
    finally:
        sort.close()


def _distinct(keys: Keys) -> Keys:
    """Return the distinct keys, ascending; ``keys`` is sorted in place."""
    keys.sort()
    return _without_repeats(keys)


@njit
def _without_repeats(keys: Keys) -> Keys:
    """Return ascending keys [C] without repeats."""
    kept = np.empty_like(keys)
    count = 0
    for row in range(keys.shape[0]):
        if row == 0 or keys[row] != keys[row - 1]:
            kept[count] = keys[row]
            count += 1
    return kept[:count].copy()
