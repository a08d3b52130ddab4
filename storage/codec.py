"""How a feature row lies in a window: float32 as it is, or float16; padded to the lines of 128 bytes that a GPU reads.

Encoding is a function of the row alone, so a row has the same values wherever it comes from: every mode of the loader
applies the same round trip.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import ConfigError, InputError
from graphsys.core.types import Features, NodeIds
from graphsys.storage.direct import Bytes, align_up

ROW_ALIGNMENT = 128  # bytes a GPU warp loads at once
_TYPES: dict[str, npt.DTypeLike] = {"float32": "<f4", "float16": "<f2"}
_LIMITS = {"float16": 65520.0}  # the least magnitude that rounds to infinity


def element_type(codec: str) -> np.dtype[Any]:
    """Return the little-endian type of one encoded value.

    Raises:
        ConfigError: The codec is unknown.
    """
    if codec not in _TYPES:
        raise ConfigError(f"codec '{codec}' is unknown; this program reads and writes {' and '.join(_TYPES)}")
    return np.dtype(_TYPES[codec])


def row_nbytes(dim: int, codec: str) -> int:
    """Return the bytes of one encoded row of ``dim`` values, padding included."""
    return align_up(dim * element_type(codec).itemsize, ROW_ALIGNMENT)


def encode(rows: Features, codec: str, *, node: NodeIds | None = None, out: Bytes | None = None) -> Bytes:
    """Return ``rows`` encoded; the padding is zero.

    Args:
        rows: [R, D] float32, finite.
        codec: ``float32`` or ``float16``.
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
    with np.errstate(under="ignore"):  # tiny values become zero or subnormal, as float16 has them
        values[:, :dim] = rows
    values[:, dim:] = 0
    return out


def decode(raw: Bytes, dim: int, codec: str) -> Features:
    """Return encoded rows ``raw`` [R, row_nbytes] as float32 [R, dim]; exact, since each codec is a part of float32."""
    return raw.view(element_type(codec))[:, :dim].astype(np.float32)


def roundtrip(rows: Features, codec: str, *, node: NodeIds | None = None) -> None:
    """Replace ``rows`` [R, D] by what encoding and decoding them gives, in place.

    Raises:
        InputError: As :func:`encode`.
    """
    if codec == "float32":
        return
    _refuse_overflow(rows, codec, node)
    with np.errstate(under="ignore"):
        rows[:] = rows.astype(element_type(codec))


def _refuse_overflow(rows: Features, codec: str, node: NodeIds | None) -> None:
    limit = _LIMITS.get(codec)
    # Two passes without a mask: extremes tell whether any value is out of range, and only then is it looked for.
    if limit is None or not rows.size or (rows.max() < limit and rows.min() > -limit):
        return
    row, column = np.argwhere(~(np.abs(rows) < limit))[0]
    name = f"node {node[row]}" if node is not None else f"row {row}"
    raise InputError(
        f"feature {column} of {name} is {rows[row, column]:g}, beyond {codec} (65504 at most); "
        f"set pack.codec to float32, or scale the features"
    )
