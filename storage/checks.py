"""Checks that turn raw numbers into what a store holds, and say which node or edge is at fault."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import InputError
from graphsys.core.types import Array, NodeIds

_REASON_LENGTH = 200

Place = Callable[[int, int], str]  # (row, column) within the values -> how a message names it


def printable(text: str) -> str:
    """Return ``text`` with line breaks and control characters replaced, for messages that quote raw input."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def short_reason(error: BaseException) -> str:
    """Return what another program's error says, as one short line; damaged files may be quoted in it."""
    plain = printable(" ".join(str(error).split()).rstrip("."))
    return plain if len(plain) <= _REASON_LENGTH else f"{plain[:_REASON_LENGTH]}..."


def as_float32(values: Array, place: Place) -> npt.NDArray[np.float32]:
    """Return finite numbers [C] or [C, D] as C-contiguous float32.

    Raises:
        InputError: They are no numbers, or one is NaN, infinite or beyond float32.
    """
    if values.dtype.kind not in "fiub":
        raise InputError(f"{place(0, 0)} is of type {values.dtype}; expected numbers")
    with np.errstate(over="ignore"):
        narrowed = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(narrowed).all():
        _refuse_not_finite(values, narrowed, place)
    return narrowed


def _refuse_not_finite(values: Array, narrowed: Array, place: Place) -> None:
    where = np.argwhere(~np.isfinite(narrowed))[0]
    found = values[tuple(where)]
    row, column = int(where[0]), int(where[1]) if where.shape[0] > 1 else 0
    if np.isfinite(found):
        raise InputError(f"{place(row, column)} is {found:g}, beyond float32 (3.4e38); rescale it")
    kind = "NaN" if np.isnan(found) else "infinite"
    raise InputError(f"{place(row, column)} is {kind}; expected a finite number, so replace or remove it")


def as_int64(values: Array, place: Place) -> NodeIds:
    """Return whole numbers [C] as int64.

    Raises:
        InputError: They are no whole numbers, or one is beyond int64.
    """
    if values.dtype.kind in "ib" or (values.dtype.kind == "u" and values.dtype.itemsize < 8):
        return np.ascontiguousarray(values, np.int64)
    if values.dtype.kind == "u":
        wrong = values > np.uint64(np.iinfo(np.int64).max)
    elif values.dtype.kind == "f":
        # 2**63 is the first float beyond int64; a comparison with NaN is false.
        wrong = ~((np.floor(values) == values) & (np.abs(values) < 2.0**63))
    else:
        raise InputError(f"{place(0, 0)} is of type {values.dtype}; expected whole numbers")
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(f"{place(row, 0)} is {values[row]}; expected a whole number within 64 bits")
    return np.ascontiguousarray(values, np.int64)
