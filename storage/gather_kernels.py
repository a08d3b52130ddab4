"""The loops that move rows, one per codec. They run at the speed of memory: asking for rows ahead gained nothing.

Every kernel takes ``rows`` [R, *] and ``cache`` [S, *] as values of the codec, ``source`` [V] int32 as
:class:`graphsys.storage.gather.RowGather` has it, and ``out`` [V, D] float32. Indices are not checked.
"""

import numpy as np
import numpy.typing as npt

from graphsys.core.types import Features
from graphsys.storage.jit import njit
from graphsys.storage.stream import LINE_NBYTES, fence, stream_row

Ints = npt.NDArray[np.int32]
Words = npt.NDArray[np.uint64]
Halves = npt.NDArray[np.uint16]

_REBIAS = np.float32(2.0**112)  # the exponent of float32 has a bias of 127, that of float16 one of 15


@njit
def gather_float32(rows: Features, cache: Features, source: Ints, out: Features) -> None:
    """Copy values as they are."""
    for place in range(source.shape[0]):
        index = source[place]
        if index >= 0:
            for column in range(out.shape[1]):
                out[place, column] = rows[index, column]
        else:
            for column in range(out.shape[1]):
                out[place, column] = cache[~index, column]


@njit
def stream_float32(rows: Features, cache: Features, source: Ints, out: Features) -> None:
    """Do what :func:`gather_float32` does, past the processor's caches."""
    fetched, held, target = rows.reshape(-1), cache.reshape(-1), out.reshape(-1)
    width = out.shape[1]
    lines = width * out.itemsize // LINE_NBYTES
    for place in range(source.shape[0]):
        index = np.int64(source[place])
        if index >= 0:
            stream_row(target, place * width, fetched, index * rows.shape[1], lines)
        else:
            stream_row(target, place * width, held, ~index * cache.shape[1], lines)
    fence()


@njit
def gather_float16(rows: Halves, cache: Halves, source: Ints, out: Features) -> None:
    """Widen finite float16, given as their bits."""
    bits = out.view(np.uint32)
    for place in range(source.shape[0]):
        index = source[place]
        if index >= 0:
            _shift_halves(rows[index], bits[place])
        else:
            _shift_halves(cache[~index], bits[place])
        for column in range(out.shape[1]):
            out[place, column] *= _REBIAS  # exact, also for subnormal halves


@njit
def _shift_halves(half: Halves, bits: npt.NDArray[np.uint32]) -> None:
    """Put sign, exponent and mantissa of every float16 where float32 has them."""
    for column in range(bits.shape[0]):
        word = np.uint32(half[column])
        sign, rest = word & np.uint32(0x8000), word & np.uint32(0x7FFF)
        bits[column] = (sign << np.uint32(16)) | (rest << np.uint32(13))


@njit
def gather_bfloat16(rows: Halves, cache: Halves, source: Ints, out: Features) -> None:
    """Widen bfloat16, given as their bits: the upper halves of float32."""
    bits = out.view(np.uint32)
    for place in range(source.shape[0]):
        index = source[place]
        if index >= 0:
            for column in range(bits.shape[1]):
                bits[place, column] = np.uint32(rows[index, column]) << np.uint32(16)
        else:
            for column in range(bits.shape[1]):
                bits[place, column] = np.uint32(cache[~index, column]) << np.uint32(16)


@njit
def gather_int8(rows: npt.NDArray[np.int8], cache: npt.NDArray[np.int8], source: Ints, out: Features) -> None:
    """Multiply int8 by the scale that stands behind them."""
    dim = out.shape[1]
    word = (dim + 3) // 4
    row_scale, cache_scale = rows.view(np.float32), cache.view(np.float32)
    for place in range(source.shape[0]):
        index = source[place]
        if index >= 0:
            scale = row_scale[index, word]
            for column in range(dim):
                out[place, column] = np.float32(rows[index, column]) * scale
        else:
            scale = cache_scale[~index, word]
            for column in range(dim):
                out[place, column] = np.float32(cache[~index, column]) * scale


@njit
def copy_rows(rows: Words, cache: Words, row: Ints, slot: Ints) -> None:
    """Write ``rows[row[i]]`` into ``cache[slot[i]]``."""
    for index in range(row.shape[0]):
        for column in range(cache.shape[1]):
            cache[slot[index], column] = rows[row[index], column]


@njit
def stream_slots(rows: Words, cache: Words, row: Ints, slot: Ints) -> None:
    """Do what :func:`copy_rows` does, past the processor's caches."""
    source, target, width = rows.reshape(-1), cache.reshape(-1), cache.shape[1]
    lines = width * cache.itemsize // LINE_NBYTES
    for index in range(row.shape[0]):
        stream_row(target, np.int64(slot[index]) * width, source, np.int64(row[index]) * width, lines)
    fence()
