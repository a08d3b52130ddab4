"""Counter-based random numbers for compiled kernels: a value depends on its key and counter alone.

Whole numbers only, so the same key gives the same value on any machine: nothing here calls a mathematical library.

Source:
    splitmix64 (Steele, Lea, Flood 2014); permutations of any range (Black, Rogaway 2002, "Ciphers with arbitrary
    finite domains": a generalised Feistel network with cycle walking).
"""

from decimal import Decimal, localcontext
from itertools import pairwise
from math import isqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graphsys.core.seeding import GOLDEN, MIX_1, MIX_2
from graphsys.storage.jit import njit

BELL_STD = 65536 / 3**0.5  # standard deviation of a bell() value
_ROUNDS = 6
_MANTISSA_BITS = 4  # power-law buckets: 16 per octave of ranks
_DIGITS = 50  # decimal digits of the power-law table; 20 reach its 64-bit thresholds

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_LOW_FIELD = np.uint64(0xFFFF)
_GOLDEN = np.uint64(GOLDEN)
_MIX_1 = np.uint64(MIX_1)
_MIX_2 = np.uint64(MIX_2)
_S16, _S27, _S30, _S31, _S48 = (np.uint64(bits) for bits in (16, 27, 30, 31, 48))

Words = npt.NDArray[np.uint64]


class Permutation(NamedTuple):
    """A permutation of [0, size) that needs no table: ``rows * cols`` is the smallest grid that holds the range."""

    size: np.uint64
    rows: np.uint64
    cols: np.uint64
    key: np.uint64


class PowerLaw(NamedTuple):
    """Ranks in [0, n) drawn with probability ~ (rank + 1)**-decay, constant within a bucket of ranks."""

    thresholds: Words  # [buckets] a draw below the first threshold above it falls into that bucket
    starts: Words  # [buckets] first rank of the bucket
    sizes: Words  # [buckets] ranks in it


@njit
def draw(key: np.uint64, counter: np.uint64) -> np.uint64:
    """Return 64 random bits; the ``counter``-th of the stream ``key``."""
    z = key + (counter + _ONE) * _GOLDEN
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@njit
def bounded(word: np.uint64, size: np.uint64) -> np.uint64:
    """Return a whole number in [0, size): the upper 64 bits of the 128-bit product of ``word`` and ``size``."""
    low, high = word & _LOW_HALF, word >> _HALF
    size_low, size_high = size & _LOW_HALF, size >> _HALF
    middle = high * size_low + ((low * size_low) >> _HALF)
    other = low * size_high + (middle & _LOW_HALF)
    return high * size_high + (middle >> _HALF) + (other >> _HALF)


@njit
def bell(word: np.uint64) -> np.int64:
    """Return a bell-shaped whole number of mean 0 and standard deviation BELL_STD: the sum of four 16-bit fields."""
    total = (word & _LOW_FIELD) + ((word >> _S16) & _LOW_FIELD) + ((word >> _HALF) & _LOW_FIELD) + (word >> _S48)
    return np.int64(total) - np.int64(131070)


def permutation(size: int, key: int) -> Permutation:
    """Return a permutation of [0, size), size > 0, that depends on ``key`` alone."""
    rows = isqrt(size)
    cols = -(-size // rows)
    return Permutation(np.uint64(size), np.uint64(rows), np.uint64(cols), np.uint64(key))


@njit
def _shift(mapping: Permutation, turn: np.uint64, half: np.uint64) -> np.uint64:
    # Even turns move the row by a function of the column, odd turns the column by a function of the row.
    size = mapping.rows if turn & _ONE == _ZERO else mapping.cols
    return bounded(draw(mapping.key + turn * _MIX_1, half), size)


@njit
def permute(mapping: Permutation, value: np.uint64) -> np.uint64:
    """Return the place of ``value`` in the permutation; both lie in [0, size)."""
    while True:
        row, col = value // mapping.cols, value % mapping.cols
        for turn in range(0, _ROUNDS, 2):
            row += _shift(mapping, np.uint64(turn), col)
            row -= mapping.rows if row >= mapping.rows else _ZERO
            col += _shift(mapping, np.uint64(turn + 1), row)
            col -= mapping.cols if col >= mapping.cols else _ZERO
        value = row * mapping.cols + col
        if value < mapping.size:
            return value


@njit
def unpermute(mapping: Permutation, place: np.uint64) -> np.uint64:
    """Return the value that :func:`permute` sends to ``place``."""
    value = place
    while True:
        row, col = value // mapping.cols, value % mapping.cols
        for turn in range(_ROUNDS - 2, -1, -2):
            back = _shift(mapping, np.uint64(turn + 1), row)
            col = col - back if col >= back else col + mapping.cols - back
            back = _shift(mapping, np.uint64(turn), col)
            row = row - back if row >= back else row + mapping.rows - back
        value = row * mapping.cols + col
        if value < mapping.size:
            return value


def power_law(size: int, decay: Decimal) -> PowerLaw:
    """Return the table for ranks in [0, size), size > 0; its length grows with the logarithm of ``size``.

    Decimal arithmetic, unlike that of libm, has the same last digit everywhere.
    """
    starts = [0]
    while starts[-1] < size:
        octave = max((starts[-1] + 1).bit_length() - 1 - _MANTISSA_BITS, 0)
        starts.append(starts[-1] + (1 << octave))
    starts[-1] = size
    sizes = [end - start for start, end in pairwise(starts)]
    with localcontext(prec=_DIGITS):
        weights = [
            count * (Decimal(2 * start + count + 1) / 2) ** -decay
            for start, count in zip(starts[:-1], sizes, strict=True)
        ]
        total, reached, thresholds = sum(weights), Decimal(0), []
        for weight in weights:
            reached += weight
            thresholds.append(min(int(reached / total * (1 << 64)), (1 << 64) - 1))
    thresholds[-1] = (1 << 64) - 1
    return PowerLaw(*(np.array(column, np.uint64) for column in (thresholds, starts[:-1], sizes)))


@njit
def draw_rank(table: PowerLaw, key: np.uint64, counter: np.uint64) -> np.uint64:
    """Return a rank of the power law; uses the draws ``counter`` and ``counter + 1`` of the stream ``key``."""
    word = draw(key, counter)
    low, high = 0, table.thresholds.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if word < table.thresholds[middle]:
            high = middle
        else:
            low = middle + 1
    start: np.uint64 = table.starts[low]
    return start + bounded(draw(key, counter + _ONE), table.sizes[low])
