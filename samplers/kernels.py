"""The compiled loops of neighbour sampling: no allocation, no interpreter lock, one batch per call.

Each loop is a function of its arguments; :mod:`graphsys.samplers.neighbor` owns the buffers. Array comments give shape
and id space; *local* ids are positions in a batch's node list.
"""

import numpy as np
import numpy.typing as npt

from graphsys.core.seeding import GOLDEN
from graphsys.core.types import NodeIds
from graphsys.storage.jit import njit
from graphsys.storage.random import bounded, draw

EMPTY = -1  # a slot of the hash table that holds no local id

_GOLDEN = np.uint64(GOLDEN)
_BITS = 64

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Local = npt.NDArray[np.int32]


@njit
def find_columns(
    indptr: NodeIds,  # [N + 1] of the graph
    num_edges: int,  # E of the graph
    node: NodeIds,  # [F] global ids, in range
    fanout: int,  # -1: all
    first: NodeIds,  # out [F] place of each node's first in-edge
    degree: NodeIds,  # out [F]
) -> int:
    """Find the in-edges of ``node``; return how many will be kept, or ``-1 - i`` when those of node i lie outside."""
    kept = 0
    for row in range(node.shape[0]):
        begin, end = indptr[node[row]], indptr[node[row] + 1]
        if begin < 0 or end < begin or end > num_edges:
            return -1 - row
        first[row] = begin
        degree[row] = end - begin
        kept += end - begin if fanout < 0 else min(end - begin, fanout)
    return kept


@njit
def choose_positions(key: np.uint64, degree: int, count: int, chosen: NodeIds) -> None:
    """Write ``count`` distinct positions of [0, degree), ascending, every subset equally likely, into ``chosen``.

    A bounded draw is biased by less than degree / 2**64, far below what any number of epochs could show.

    Cost:
        O(min(count**2, degree)).

    Source:
        Floyd's algorithm (Bentley, Floyd 1987, "A sample of brilliance"); algorithm S (Knuth, TAOCP 2, 3.4.2).
    """
    if count * count < 4 * degree:
        _choose_few(key, degree, count, chosen)
    else:
        _choose_many(key, degree, count, chosen)


@njit
def _choose_few(key: np.uint64, degree: int, count: int, chosen: NodeIds) -> None:
    for size in range(count):
        last = degree - count + size
        position = np.int64(bounded(draw(key, np.uint64(size)), np.uint64(last + 1)))
        place = size
        while place > 0 and chosen[place - 1] > position:
            place -= 1
        if place > 0 and chosen[place - 1] == position:
            chosen[size] = last  # larger than all before it
        else:
            for moved in range(size, place, -1):
                chosen[moved] = chosen[moved - 1]
            chosen[place] = position


@njit
def _choose_many(key: np.uint64, degree: int, count: int, chosen: NodeIds) -> None:
    size = 0
    for position in range(degree):
        if size == count:
            break
        if np.int64(bounded(draw(key, np.uint64(position)), np.uint64(degree - position))) < count - size:
            chosen[size] = position
            size += 1


@njit
def pick_neighbors(
    indices: Ids,  # [E] of the graph
    node: NodeIds,  # [F] global ids
    first: NodeIds,  # [F] place of each node's first in-edge
    degree: NodeIds,  # [F]
    fanout: int,  # -1: all
    key: np.uint64,  # of the batch and the hop
    chosen: NodeIds,  # scratch, at least the largest number of edges that a node keeps
    indptr: Local,  # out [F + 1]
    picked: Ids,  # out [kept] global source ids
) -> None:
    """Draw the in-edges that each node keeps; what a node draws depends on ``key`` and its id alone."""
    done = 0
    indptr[0] = 0
    for row in range(node.shape[0]):
        begin, available = first[row], degree[row]
        if fanout < 0 or available <= fanout:
            for position in range(available):
                picked[done + position] = indices[begin + position]
            done += available
        else:
            choose_positions(draw(key, np.uint64(node[row])), available, fanout, chosen)
            for place in range(fanout):
                picked[done + place] = indices[begin + chosen[place]]
            done += fanout
        indptr[row + 1] = done


@njit
def _slot(node: np.int64, shift: np.uint64) -> np.uint64:
    return (np.uint64(node) * _GOLDEN) >> shift


@njit
def relabel(
    ids: Ids,  # [C] global ids
    start: int,  # those before it are done
    num_nodes: int,  # N of the graph
    node: NodeIds,  # [>= count + C] global id of each local id; new ones are appended
    count: int,  # local ids in use
    table: Local,  # [power of two] open addressing: local id or EMPTY
    shift: np.uint64,  # 64 - log2(table size)
    local: Local,  # out [C]; may be ``ids`` itself
) -> tuple[int, int]:
    """Give every id its local id, new ones in the order in which they come; return (ids done, local ids in use).

    Stops before the table is more than half full, for the caller to grow it, and at an id outside the graph, where it
    returns ``-1 - i`` in place of the ids done.

    Source:
        Linear probing (Knuth, TAOCP 3, 6.4); multiplicative hashing by 2**64 / golden ratio.
    """
    mask = np.uint64(table.shape[0] - 1)
    for index in range(start, ids.shape[0]):
        wanted = np.int64(ids[index])
        if wanted < 0 or wanted >= num_nodes:
            return -1 - index, count
        slot = _slot(wanted, shift)
        found = table[slot]
        while found != EMPTY and node[found] != wanted:
            slot = (slot + np.uint64(1)) & mask
            found = table[slot]
        if found == EMPTY:
            if 2 * count >= table.shape[0]:
                return index, count
            node[count] = wanted
            table[slot] = count
            found = np.int32(count)
            count += 1
        local[index] = found
    return ids.shape[0], count


@njit
def fill_table(node: NodeIds, table: Local, shift: np.uint64) -> None:
    """Enter distinct global ids ``node`` [V] into an empty table."""
    mask = np.uint64(table.shape[0] - 1)
    for index in range(node.shape[0]):
        slot = _slot(node[index], shift)
        while table[slot] != EMPTY:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = index


@njit
def gather_degrees(indptr: NodeIds, node: NodeIds, out: NodeIds) -> None:
    """Write the in-degree in the whole graph of each of ``node`` [V] into ``out`` [V]."""
    for row in range(node.shape[0]):
        out[row] = indptr[node[row] + 1] - indptr[node[row]]
