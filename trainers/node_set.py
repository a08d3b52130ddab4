"""A set of node ids as a bit map with ranks: membership, sorted members and positions, without sorting edges."""

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds
from graphsys.storage.jit import njit
from graphsys.storage.rank_index import popcount

Words = npt.NDArray[np.uint64]
Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_ONE = np.uint64(1)


class NodeSet:
    """Ids in [0, num_ids), kept in num_ids / 4 bytes whatever the number of members."""

    def __init__(self, num_ids: int) -> None:
        self._bits: Words = np.zeros(-(-num_ids // 64), np.uint64)
        self._before = np.zeros(self._bits.shape[0], np.int64)  # members before each word

    def clear(self) -> None:
        """Take every member out."""
        self._bits[:] = 0

    def add(self, node: Ids) -> None:
        """Put the ids ``node`` [*] in; repeats are fine."""
        _add(self._bits, node)

    def grow(self, first: int, indptr: NodeIds, source: Ids, max_members: int, max_degree: int) -> int:
        """Put destinations ``first``, ``first + 1``, ... and their sources in, as many as fit; return their number.

        The first one always enters. One with more than ``max_degree`` sources enters alone.

        Args:
            indptr: [n + 1] int64 where each destination's sources start in ``source``; starts at 0.
            source: [E] ids.
            max_members: Members that the set may hold; repeated sources of one destination count each.
        """
        return _grow(self._bits, first, indptr, source, max_members, max_degree)

    def members(self) -> NodeIds:
        """Return the members [*] int64, ascending; makes :meth:`positions` valid."""
        out = np.empty(_rank(self._bits, self._before), np.int64)
        _members(self._bits, out)
        return out

    def positions(self, node: Ids) -> npt.NDArray[np.int32]:
        """Return where each of the members ``node`` [*] stands in :meth:`members`, as of its last call."""
        out = np.empty(node.shape[0], np.int32)
        _positions(self._bits, self._before, node, out)
        return out


@njit
def _add(bits: Words, node: Ids) -> None:
    for index in range(node.shape[0]):
        bits[node[index] >> 6] |= _ONE << np.uint64(node[index] & 63)


@njit
def _grow(bits: Words, first: int, indptr: NodeIds, source: Ids, max_members: int, max_degree: int) -> int:
    held = 0
    for taken in range(indptr.shape[0] - 1):
        start, stop = indptr[taken], indptr[taken + 1]
        fresh = _absent(bits, first + taken)
        for edge in range(start, stop):
            fresh += _absent(bits, source[edge])
        if taken > 0 and (held + fresh > max_members or stop - start > max_degree):
            return taken
        held += _put(bits, first + taken)
        for edge in range(start, stop):
            held += _put(bits, source[edge])
        if stop - start > max_degree:
            return taken + 1
    return int(indptr.shape[0]) - 1


@njit
def _absent(bits: Words, node: int) -> int:
    return 1 - int((bits[node >> 6] >> np.uint64(node & 63)) & _ONE)


@njit
def _put(bits: Words, node: int) -> int:
    """Put one id in; return 1 when it was not there."""
    absent = _absent(bits, node)
    bits[node >> 6] |= _ONE << np.uint64(node & 63)
    return absent


@njit
def _rank(bits: Words, before: NodeIds) -> int:
    total = 0
    for word in range(bits.shape[0]):
        before[word] = total
        total += popcount(bits[word])
    return total


@njit
def _members(bits: Words, out: NodeIds) -> None:
    place = 0
    for word in range(bits.shape[0]):
        left = bits[word]
        while left:
            lowest = left & (~left + _ONE)
            out[place] = word * 64 + popcount(lowest - _ONE)
            place += 1
            left ^= lowest


@njit
def _positions(bits: Words, before: NodeIds, node: Ids, out: npt.NDArray[np.int32]) -> None:
    for index in range(node.shape[0]):
        word = node[index] >> 6
        lower = (_ONE << np.uint64(node[index] & 63)) - _ONE
        out[index] = before[word] + popcount(bits[word] & lower)
