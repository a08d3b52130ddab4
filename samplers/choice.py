"""Drawing some of a node's in-edges: compiled, without allocation, from a counter-based stream of random numbers."""

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds
from graphsys.storage.jit import njit
from graphsys.storage.random import bounded, draw

_FLOYD = 32  # comparing with all earlier draws is this much cheaper than drawing for every position
_VAIN_DRAWS = 8  # before the weights that are left are summed up anew: about what that costs
_TO_53_BITS = np.uint64(11)
_ONE_53RD = 2.0**-53

Weights = npt.NDArray[np.float32]
Sums = npt.NDArray[np.float64]


@njit
def choose_positions(key: np.uint64, degree: int, out: NodeIds) -> None:
    """Fill ``out`` with distinct positions of [0, degree), every set of ``len(out) <= degree`` of them equally likely.

    A bounded draw is biased by less than degree / 2**64, far below what any number of epochs could show.

    Cost:
        O(min(count**2, degree)).

    Source:
        Floyd's algorithm (Bentley, Floyd 1987, "A sample of brilliance"); algorithm S (Knuth, TAOCP 2, 3.4.2).
    """
    count = out.shape[0]
    if count * count < _FLOYD * degree:
        _choose_few(key, degree, out)
    else:
        _choose_many(key, degree, out)


@njit
def _choose_few(key: np.uint64, degree: int, out: NodeIds) -> None:
    for size in range(out.shape[0]):
        last = degree - out.shape[0] + size
        position = np.int64(bounded(draw(key, np.uint64(size)), np.uint64(last + 1)))
        # Looking at all of them costs less than guessing wrong where to stop.
        taken = False
        for earlier in range(size):
            taken |= out[earlier] == position
        out[size] = last if taken else position


@njit
def _choose_many(key: np.uint64, degree: int, out: NodeIds) -> None:
    size = 0
    for position in range(degree):
        if size == out.shape[0]:
            break
        if np.int64(bounded(draw(key, np.uint64(position)), np.uint64(degree - position))) < out.shape[0] - size:
            out[size] = position
            size += 1


@njit
def choose_repeated(key: np.uint64, degree: int, out: NodeIds) -> None:
    """Write independent positions of [0, degree), each equally likely, into ``out``."""
    for size in range(out.shape[0]):
        out[size] = np.int64(bounded(draw(key, np.uint64(size)), np.uint64(degree)))


@njit
def choose_weighted(key: np.uint64, weight: Weights, reach: Sums, replace: bool, out: NodeIds) -> int:
    """Write positions drawn in proportion to ``weight`` [degree] into ``out``; return how many, fewer where few weigh.

    Without replacement a position drawn before is drawn anew, which is the same as drawing from those that are left;
    after some vain draws those that are left are summed up by themselves. Only sums and products are used, so the same
    key gives the same positions on any machine.

    Args:
        reach: [>= degree] scratch: sums of the weights up to each position.

    Returns:
        Positions written, or ``-1 - i`` when the weight of position i is negative or no number.

    Cost:
        O(degree + count * log(degree)); rarely O(count * degree), where few positions have nearly all the weight.
    """
    count, positive = len(out), 0
    for position in range(len(weight)):
        if not 0 <= weight[position] < np.inf:
            return -1 - position
        if weight[position] > 0:
            positive += 1
    if not replace:
        count = min(count, positive)
    if positive == 0:
        return 0
    last = _sum_up(weight, out[:0], reach)
    counter, vain, size = 0, 0, 0
    while size < count:
        position = _find(reach, last, _unit(draw(key, np.uint64(counter))) * reach[last])
        counter += 1
        if not replace and _holds(out[:size], position):
            vain += 1
            if vain == _VAIN_DRAWS:
                last, vain = _sum_up(weight, out[:size], reach), 0
            continue
        out[size] = position
        size += 1
    return count


@njit
def _sum_up(weight: Weights, without: NodeIds, reach: Sums) -> int:
    """Write running sums of the weights, those of ``without`` taken as zero; return the last position that weighs."""
    for position in range(weight.shape[0]):
        reach[position] = weight[position]
    for position in without:
        reach[position] = 0.0
    total, last = 0.0, 0
    for position in range(weight.shape[0]):
        if reach[position] > 0:
            last = position
        total += reach[position]
        reach[position] = total
    return last


@njit
def _find(reach: Sums, last: int, value: float) -> int:
    """Return the first position whose sum exceeds ``value``, ``last`` where none does."""
    low, high = 0, last
    while low < high:
        middle = (low + high) // 2
        if value < reach[middle]:
            high = middle
        else:
            low = middle + 1
    return low


@njit
def _holds(chosen: NodeIds, position: int) -> bool:
    found = False
    for earlier in chosen:
        found |= earlier == position
    return found


@njit
def _unit(word: np.uint64) -> float:
    """Return a number in [0, 1) from 53 of 64 random bits."""
    return float(word >> _TO_53_BITS) * _ONE_53RD
