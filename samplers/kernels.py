"""The compiled loops of neighbour sampling: no allocation, no interpreter lock, one batch per call.

Each loop is a function of its arguments; its callers own the buffers. Array comments give shape
and id space; *local* ids are positions in a batch's node list.
"""

import numpy as np
import numpy.typing as npt

from graphsys.core.seeding import GOLDEN
from graphsys.core.types import NodeIds
from graphsys.samplers.choice import Sums, Weights, choose_positions, choose_repeated, choose_weighted
from graphsys.storage.jit import njit, prefetch
from graphsys.storage.random import draw

EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)  # a slot of the hash table without entry: no local id is that large

_GOLDEN = np.uint64(GOLDEN)
_ONE, _HALF, _LOW_HALF = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
_AHEAD = 16  # ids: more than a core has cache misses on their way

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]
Local = npt.NDArray[np.int32]
Slots = npt.NDArray[np.uint64]


@njit
def find_columns(
    indptr: NodeIds,  # [N + 1] of the graph
    num_edges: int,  # E of the graph
    node: NodeIds,  # [F] global ids, in range
    fanout: int,  # -1: all
    replace: bool,
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
        kept += num_kept(end - begin, fanout, replace)
    return kept


@njit
def num_kept(degree: int, fanout: int, replace: bool) -> int:
    """Return how many of ``degree`` in-edges are kept; with replacement, ``fanout`` of any that there are."""
    if fanout < 0:
        return degree
    if replace:
        return fanout if degree > 0 else 0
    return min(degree, fanout)


@njit
def draw_places(
    node: NodeIds,  # [F] global ids
    first: NodeIds,  # [F] place of each node's first in-edge
    degree: NodeIds,  # [F]
    fanout: int,  # -1: all
    replace: bool,
    key: np.uint64,  # of the batch and the hop
    row: int,  # those before it are done
    place: NodeIds,  # out [*] places of edges in the graph's indices
    indptr: Local,  # [F + 1]; out: the entries behind ``row``
) -> tuple[int, int]:
    """Draw the in-edges that each node keeps, until ``place`` takes no further node's; return (rows done, places).

    What a node draws depends on ``key`` and its id alone.
    """
    done, fill = indptr[row], 0
    while row < node.shape[0]:
        kept = num_kept(degree[row], fanout, replace)
        if fill + kept > place.shape[0]:
            break
        mine = place[fill : fill + kept]
        if kept == degree[row] and not (replace and fanout >= 0):
            for position in range(kept):
                mine[position] = position
        elif replace:
            choose_repeated(draw(key, np.uint64(node[row])), degree[row], mine)
        else:
            choose_positions(draw(key, np.uint64(node[row])), degree[row], mine)
        for position in range(kept):
            mine[position] += first[row]
        fill += kept
        row += 1
        indptr[row] = done + fill
    return row, fill


@njit
def pick_neighbors(
    indices: Ids,  # [E] of the graph
    node: NodeIds,  # [F] global ids
    first: NodeIds,  # [F] place of each node's first in-edge
    degree: NodeIds,  # [F]
    fanout: int,  # -1: all
    replace: bool,
    key: np.uint64,  # of the batch and the hop
    place: NodeIds,  # scratch, at least the largest number of edges that a node keeps
    indptr: Local,  # out [F + 1]
    picked: Ids,  # out [kept] global source ids
) -> None:
    """Draw the in-edges that each node keeps, as :func:`draw_places` does, and read them.

    The places of many nodes' edges are drawn first and read then, so that many reads are on their way at once.
    """
    row, done = 0, 0
    indptr[0] = 0
    while row < node.shape[0]:
        row, fill = draw_places(node, first, degree, fanout, replace, key, row, place, indptr)
        for position in range(fill):
            picked[done + position] = indices[place[position]]
        done += fill


@njit
def pick_weighted(
    indices: Ids,  # [E] of the graph
    weight: Weights,  # [E] of the graph
    node: NodeIds,  # [F] global ids
    first: NodeIds,  # [F] place of each node's first in-edge
    degree: NodeIds,  # [F]
    fanout: int,  # at least 0
    replace: bool,
    key: np.uint64,  # of the batch and the hop
    place: NodeIds,  # scratch [fanout]
    reach: Sums,  # scratch [>= largest degree]
    indptr: Local,  # out [F + 1]
    picked: Ids,  # out [>= kept] global source ids
) -> int:
    """As :func:`pick_neighbors`, in proportion to the edges' weights; an edge of weight zero is never kept.

    Returns:
        Edges kept, or ``-1 - i`` when a weight of an in-edge of row i is negative or no number.
    """
    done = 0
    indptr[0] = 0
    for row in range(node.shape[0]):
        begin, end = first[row], first[row] + degree[row]
        mine = place[: num_kept(degree[row], fanout, replace)]
        kept = choose_weighted(draw(key, np.uint64(node[row])), weight[begin:end], reach, replace, mine)
        if kept < 0:
            return -1 - row
        for position in range(kept):
            picked[done + position] = indices[begin + mine[position]]
        done += kept
        indptr[row + 1] = done
    return done


@njit
def _slot(node: np.uint64, shift: np.uint64) -> np.uint64:
    return (node * _GOLDEN) >> shift


@njit
def _entry(node: np.uint64, local: int) -> np.uint64:
    """Return a slot's content: the lower half of the global id, then the local id."""
    return (node << _HALF) | np.uint64(local)


@njit
def relabel(
    ids: Ids,  # [C] global ids
    start: int,  # those before it are done
    num_nodes: int,  # N of the graph
    node: NodeIds,  # [>= count + C] global id of each local id; new ones are appended
    count: int,  # local ids in use
    table: Slots,  # [power of two] open addressing: entries or EMPTY
    shift: np.uint64,  # 64 - log2(table size)
    local: Local,  # out [C]; may be ``ids`` itself
) -> tuple[int, int]:
    """Give every id its local id, new ones in the order in which they come; return (ids done, local ids in use).

    Stops before the table is more than half full, for the caller to grow it, and at an id outside the graph, where it
    returns ``-1 - i`` in place of the ids done. A slot is asked for some ids ahead, so that its cache miss is over when
    it is looked at.

    Source:
        Linear probing (Knuth, TAOCP 3, 6.4); multiplicative hashing by 2**64 / golden ratio.
    """
    mask = np.uint64(table.shape[0] - 1)
    for index in range(start, ids.shape[0]):
        if index + _AHEAD < ids.shape[0]:
            prefetch(table, np.int64(_slot(np.uint64(ids[index + _AHEAD]), shift)))
        if ids[index] < 0 or ids[index] >= num_nodes:
            return -1 - index, count
        wanted = np.uint64(ids[index])
        slot = _slot(wanted, shift)
        entry = table[slot]
        while entry != EMPTY and not _is(entry, wanted, node):
            slot = (slot + _ONE) & mask
            entry = table[slot]
        if entry == EMPTY:
            if 2 * count >= table.shape[0]:
                return index, count
            node[count] = np.int64(wanted)
            entry = _entry(wanted, count)
            table[slot] = entry
            count += 1
        local[index] = np.int32(entry & _LOW_HALF)
    return ids.shape[0], count


@njit
def _is(entry: np.uint64, wanted: np.uint64, node: NodeIds) -> bool:
    """Whether an entry is that of the global id ``wanted``; only ids of 2**32 and more are looked up in ``node``."""
    if entry >> _HALF != wanted & _LOW_HALF:
        return False
    return bool(wanted <= _LOW_HALF or np.uint64(node[np.int64(entry & _LOW_HALF)]) == wanted)


@njit
def fill_table(node: NodeIds, table: Slots, shift: np.uint64) -> None:
    """Enter distinct global ids ``node`` [V] into an empty table."""
    mask = np.uint64(table.shape[0] - 1)
    for index in range(node.shape[0]):
        wanted = np.uint64(node[index])
        slot = _slot(wanted, shift)
        while table[slot] != EMPTY:
            slot = (slot + _ONE) & mask
        table[slot] = _entry(wanted, index)


@njit
def gather_degrees(indptr: NodeIds, node: NodeIds, out: NodeIds) -> None:
    """Write the in-degree in the whole graph of each of ``node`` [V] into ``out`` [V]."""
    for row in range(node.shape[0]):
        out[row] = indptr[node[row] + 1] - indptr[node[row]]
