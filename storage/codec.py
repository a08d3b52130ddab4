"""How a feature row lies in a window: float32 as it is, or smaller; see ``docs/format/pack.md``.

Encoding is a function of the row alone, so a row has the same values wherever it comes from: every mode of the loader
applies the same round trip. Rounding is to nearest, ties to even.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import ConfigError, InputError
from graphsys.core.types import Array, Features, NodeIds
from graphsys.storage.direct import Bytes, align_up
from graphsys.storage.jit import njit

ROW_ALIGNMENT = 16  # bytes of the widest load of one GPU thread; wider padding would be read from the disk for nothing
CODECS = ("float32", "float16", "bfloat16", "int8")
_TYPES: dict[str, npt.DTypeLike] = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "i1"}
_SCALE_NBYTES = 4

_ROUND = np.float32(1.5 * 2**23)  # adding and taking away rounds a float32 below 2**22 to an integer, ties to even
_STEPS = np.float32(127)  # of int8, on either side of zero
_LEAST_SCALE = np.float32(2.0**-126)  # the least float32 that is not subnormal


class _Range(NamedTuple):
    """What a codec can hold."""

    limit: float  # the least magnitude that it cannot hold
    largest: str  # the greatest that it can, for people


_RANGES = {
    "float16": _Range(65520.0, "65504"),
    "bfloat16": _Range(float.fromhex("0x1.ffp127"), "3.39e38"),
    "int8": _Range(float(np.float32(3.4e38)), "3.39e38"),  # beyond, 127 scales may be infinite,
}


def element_type(codec: str) -> np.dtype[Any]:
    """Return the little-endian type of one encoded value; bfloat16 travels as its bits.

    Raises:
        ConfigError: The codec is unknown.
    """
    if codec not in _TYPES:
        raise ConfigError(f"codec '{codec}' is unknown; this program reads and writes {', '.join(CODECS)}")
    return np.dtype(_TYPES[codec])


def scale_offset(dim: int) -> int:
    """Return where the float32 scale of an int8 row of ``dim`` values starts."""
    return align_up(dim, _SCALE_NBYTES)


def row_nbytes(dim: int, codec: str) -> int:
    """Return the bytes of one encoded row of ``dim`` values, padding included."""
    nbytes = dim * element_type(codec).itemsize
    return align_up(scale_offset(dim) + _SCALE_NBYTES if codec == "int8" else nbytes, ROW_ALIGNMENT)


def encode(rows: Features, codec: str, *, node: NodeIds | None = None, out: Bytes | None = None) -> Bytes:
    """Return ``rows`` encoded; the padding is zero.

    Args:
        rows: [R, D] float32, finite.
        codec: one of ``CODECS``.
        node: [R] int64 global ids of the rows, to name one in an error.
        out: [R, row_nbytes] uint8 buffer to write into; a fresh one without it.

    Raises:
        InputError: A value lies beyond the range of the codec; ``out`` is left unchanged.
    """
    num_rows, dim = rows.shape
    _refuse_overflow(rows, codec, node)
    if out is None:
        out = np.empty((num_rows, row_nbytes(dim, codec)), np.uint8)
    values = out.view(element_type(codec))
    if codec == "bfloat16":
        _encode_bfloat16(rows.view(np.uint32), values)
    elif codec == "int8":
        _encode_int8(rows, values, out.view(np.float32), scale_offset(dim) // _SCALE_NBYTES)
    else:
        with np.errstate(under="ignore"):  # tiny values become zero or subnormal, as float16 has them
            values[:, :dim] = rows
        values[:, dim:] = 0
    return out


def decode(raw: Bytes, dim: int, codec: str) -> Features:
    """Return encoded rows ``raw`` [R, row_nbytes] as float32 [R, dim]; exact.

    The reference of :mod:`graphsys.storage.gather`, which decodes on the way.
    """
    values: Array = raw.view(element_type(codec))[:, :dim]
    if codec == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    if codec == "int8":
        scale = raw[:, scale_offset(dim) :][:, :_SCALE_NBYTES].copy().view(np.float32)
        return values.astype(np.float32) * scale
    return values.astype(np.float32)


def roundtrip(rows: Features, codec: str, *, node: NodeIds | None = None) -> None:
    """Replace ``rows`` [R, D] by what encoding and decoding them gives, in place.

    Raises:
        InputError: As :func:`encode`.
    """
    if codec != "float32":
        rows[:] = decode(encode(rows, codec, node=node), rows.shape[1], codec)


def _refuse_overflow(rows: Features, codec: str, node: NodeIds | None) -> None:
    known = _RANGES.get(codec)
    # Two passes without a mask: extremes tell whether any value is out of range, and only then is it looked for.
    if known is None or not rows.size or (rows.max() < known.limit and rows.min() > -known.limit):
        return
    row, column = np.argwhere(~(np.abs(rows) < known.limit))[0]
    name = f"node {node[row]}" if node is not None else f"row {row}"
    raise InputError(
        f"feature {column} of {name} is {rows[row, column]:g}, beyond {codec} ({known.largest} at most); "
        f"set pack.codec to float32, or scale the features"
    )


@njit
def _encode_bfloat16(bits: npt.NDArray[np.uint32], out: npt.NDArray[np.uint16]) -> None:
    """Keep the upper half of every float32 of ``bits`` [R, D], rounded."""
    for row in range(bits.shape[0]):
        for column in range(bits.shape[1]):
            value = bits[row, column]
            odd = (value >> np.uint32(16)) & np.uint32(1)
            out[row, column] = (value + np.uint32(0x7FFF) + odd) >> np.uint32(16)
        out[row, bits.shape[1] :] = 0


@njit
def _encode_int8(rows: Features, out: npt.NDArray[np.int8], words: Features, scale_word: int) -> None:
    """Write ``rows`` [R, D] as multiples of a scale per row: word ``scale_word`` of ``words``, a view of ``out``."""
    for row in range(rows.shape[0]):
        largest = np.float32(0)
        for column in range(rows.shape[1]):
            largest = max(largest, abs(rows[row, column]))
        scale = largest / _STEPS
        if scale < _LEAST_SCALE:  # too small to divide by exactly: the row becomes zero
            scale = np.float32(0)
        divisor = scale if scale > 0 else np.float32(np.inf)
        out[row, rows.shape[1] :] = 0
        for column in range(rows.shape[1]):
            out[row, column] = np.int8((rows[row, column] / divisor + _ROUND) - _ROUND)
        words[row, scale_word] = scale
