"""A set of strings in a fixed amount of memory: a hash table over one heap of bytes."""

from typing import Any

import numpy as np

from graphsys.core.types import NodeIds
from graphsys.storage.external_ids import Hashes, Text, from_buffers, hash_texts, same_text, text_buffers
from graphsys.storage.jit import njit

_HEAP_SHARE = 0.6  # of the memory; the rest is the table, for strings of about 30 bytes and more
_ENTRY_NBYTES = 8 + 8 + 2 * 8  # hash, offset, two slots


class TextSet:
    """Collects distinct strings until its memory is full.

    Args:
        memory: Bytes that all arrays together take.
    """

    def __init__(self, memory: int) -> None:
        self._heap = np.empty(int(_HEAP_SHARE * memory), np.uint8)
        room = max(1, (memory - self._heap.shape[0]) // _ENTRY_NBYTES)
        self._hashes = np.empty(room, np.uint64)
        self._offsets = np.zeros(room + 1, np.int64)
        self._slots = np.full(1 << (2 * room - 1).bit_length(), -1, np.int64)
        self.num_texts = 0

    def add(self, texts: Any, start: int) -> int:
        """Add the strings of a large_string array from row ``start`` on; return the first row that found no room."""
        bounds, text = text_buffers(texts)
        hashes = hash_texts(bounds[start:], text)
        done, self.num_texts = _insert(
            bounds[start:], text, hashes, self._heap, self._offsets, self._hashes, self._slots, self.num_texts
        )
        return start + done

    def drain(self) -> tuple[Hashes, Any]:
        """Return hashes and strings by ascending hash, then by bytes, and forget them."""
        offsets = self._offsets[: self.num_texts + 1]
        texts = from_buffers(offsets, self._heap[: offsets[-1]])
        hashes = self._hashes[: self.num_texts]
        order = np.argsort(hashes, kind="stable")
        found = hashes[order]
        if (found[1:] == found[:-1]).any():
            # Rare; but the order of strings with one hash must not depend on which of them came first.
            order = np.array(sorted(order, key=lambda row: (hashes[row], texts[int(row)].as_py().encode())), np.int64)
        drained = found, texts.take(order)
        self._slots[:] = -1
        self.num_texts = 0
        return drained


@njit
def _insert(
    bounds: NodeIds,
    text: Text,
    hashes: Hashes,
    heap: Text,
    offsets: NodeIds,
    known: Hashes,
    slots: NodeIds,
    count: int,
) -> tuple[int, int]:
    """Add strings until one finds no room; return how many were taken, and the size of the set."""
    mask = slots.shape[0] - 1
    for row in range(hashes.shape[0]):
        slot = np.int64(hashes[row] & np.uint64(mask))
        while slots[slot] >= 0 and not (
            known[slots[slot]] == hashes[row] and same_text(bounds, text, row, offsets, heap, slots[slot])
        ):
            slot = (slot + 1) & mask
        if slots[slot] >= 0:
            continue
        length = bounds[row + 1] - bounds[row]
        if count == known.shape[0] or offsets[count] + length > heap.shape[0]:
            return row, count
        for place in range(length):
            heap[offsets[count] + place] = text[bounds[row] + place]
        offsets[count + 1] = offsets[count] + length
        known[count] = hashes[row]
        slots[slot] = count
        count += 1
    return hashes.shape[0], count
