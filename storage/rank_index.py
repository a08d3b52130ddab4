"""Integer ids -> positions among all ids, by counting bits: a few operations per id, a bit per possible id."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds
from graphsys.storage.flat import FlatArray
from graphsys.storage.jit import njit

Words = npt.NDArray[np.uint64]

_BLOCK = 512  # bits that share one count
_PIECE = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class RankIndex:
    """A set of integers and what each of them stands for."""

    low: int  # smallest member
    bits: Words  # one bit per integer from low on
    counts: NodeIds  # members before each block of 512 bits
    order: NodeIds | None  # [N] node of each rank; None: ranks are nodes

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return int(self.bits.nbytes + self.counts.nbytes + (0 if self.order is None else self.order.nbytes))

    def to_node(self, ids: NodeIds) -> NodeIds:
        """Return nodes [C]; -1 for integers that are no members."""
        rank = _ranks(ids, self.low, self.bits, self.counts)
        if self.order is None:
            return rank
        return np.where(rank < 0, -1, self.order[rank])


def build_rank_index(ascending: FlatArray, order: FlatArray | None, memory: int) -> RankIndex | None:
    """Return the index of ``ascending`` [N] int64, N > 0, or None when it does not fit into ``memory`` bytes.

    Args:
        order: [N] int64 node of each member; None: the i-th is node i.
    """
    num_nodes = ascending.shape[0]
    low, high = int(ascending.read(0, 1)[0]), int(ascending.read(num_nodes - 1)[0])
    num_blocks = (high - low) // _BLOCK + 1
    nbytes = num_blocks * (_BLOCK // 8 + 8) + (0 if order is None else 8 * num_nodes)
    if nbytes > memory:
        return None
    bits = np.zeros(num_blocks * (_BLOCK // 64), np.uint64)
    for _, ids in ascending.blocks(_PIECE):
        set_bits(ids, low, bits)
    return RankIndex(low=low, bits=bits, counts=count_blocks(bits), order=None if order is None else order.read())


@njit
def set_bits(ids: NodeIds, low: int, bits: Words) -> None:
    """Add ``ids`` [C], all within the range, to the set."""
    for row in range(ids.shape[0]):
        place = np.uint64(ids[row] - low)
        bits[place >> np.uint64(6)] |= np.uint64(1) << (place & np.uint64(63))


@njit
def count_blocks(bits: Words) -> NodeIds:
    """Return how many members lie before each block of 512 bits."""
    words = 8
    counts = np.empty(bits.shape[0] // words, np.int64)
    total = 0
    for block in range(counts.shape[0]):
        counts[block] = total
        for word in range(block * words, (block + 1) * words):
            total += popcount(bits[word])
    return counts


@njit
def _ranks(ids: NodeIds, low: int, bits: Words, counts: NodeIds) -> NodeIds:
    rank = np.full(ids.shape[0], -1, np.int64)
    high = low + bits.shape[0] * 64
    for row in range(ids.shape[0]):
        if ids[row] < low or ids[row] >= high:
            continue
        place = np.uint64(ids[row] - low)
        word, bit = np.int64(place >> np.uint64(6)), place & np.uint64(63)
        if (bits[word] >> bit) & np.uint64(1) == np.uint64(0):
            continue
        found = counts[word >> 3]
        for before in range(word & ~7, word):
            found += popcount(bits[before])
        rank[row] = found + popcount(bits[word] & ((np.uint64(1) << bit) - np.uint64(1)))
    return rank


@njit
def popcount(word: np.uint64) -> int:
    """Return the number of ones of a 64-bit word.

    Source:
        Warren, Hacker's Delight, 2nd edition, section 5-1.
    """
    pairs = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    fours = (pairs & np.uint64(0x3333333333333333)) + ((pairs >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bytes_ = (fours + (fours >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return int((bytes_ * np.uint64(0x0101010101010101)) >> np.uint64(56))
