"""External ids in the two forms everything else works with, int64 arrays and arrow strings; and a string's hash."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from graphsys.core.errors import InputError
from graphsys.core.types import NodeIds
from graphsys.storage.checks import as_int64, printable
from graphsys.storage.jit import njit

Hashes = npt.NDArray[np.uint64]
Text = npt.NDArray[np.uint8]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def plain_ids(ids: Any) -> Any:
    """Return ids [V] as an int64 ndarray or a pyarrow large_string array.

    Args:
        ids: pyarrow or numpy array, or a sequence, of integers or strings.

    Raises:
        InputError: One is missing, beyond int64, or neither an integer nor a string.
    """
    if isinstance(ids, np.ndarray) and ids.dtype.kind in "iub":
        return as_int64(ids, lambda row, _: f"id {row}")
    array = ids if isinstance(ids, pa.Array) else pa.array(ids)
    if array.null_count:
        raise InputError(f"id {int(np.flatnonzero(array.is_null())[0])} is missing; every node needs an id")
    if pa.types.is_integer(array.type):
        return as_int64(array.to_numpy(zero_copy_only=False), lambda row, _: f"id {row}")
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return array.cast(pa.large_string())
    if len(array) == 0:
        return np.empty(0, np.int64)
    raise InputError(f"ids are of type {array.type}; expected integers or strings")


def is_text(ids: Any) -> bool:
    """Whether plain ids are strings."""
    return isinstance(ids, pa.Array)


def show_id(value: Any) -> str:
    """Return how messages show an external id."""
    plain = value.as_py() if isinstance(value, pa.Scalar) else value
    return f"'{printable(plain)}'" if isinstance(plain, str) else str(plain)


def text_buffers(texts: Any) -> tuple[NodeIds, Text]:
    """Return the offsets [V + 1] and utf-8 bytes of a large_string array, without copying."""
    _, offsets, data = texts.buffers()
    if len(texts) == 0:
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return bounds, np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


def from_buffers(offsets: NodeIds, text: Text) -> Any:
    """Return the large_string array of ``offsets`` [V + 1] into ``text``."""
    bounds, data = (pa.py_buffer(np.ascontiguousarray(values)) for values in (offsets, text))
    return pa.LargeStringArray.from_buffers(offsets.shape[0] - 1, bounds, data)


@njit
def hash_texts(offsets: NodeIds, text: Text) -> Hashes:
    """Return the 64-bit hash [V] of every string; the format page ``store.md`` defines it.

    Source:
        splitmix64's finaliser (Steele, Lea, Flood 2014), chained over little-endian words of eight bytes.
    """
    hashes = np.empty(offsets.shape[0] - 1, np.uint64)
    for row in range(hashes.shape[0]):
        start, stop = offsets[row], offsets[row + 1]
        state = _mix(np.uint64(stop - start) + _GOLDEN)
        for first in range(start, stop, 8):
            word = np.uint64(0)
            for place in range(first, min(first + 8, stop)):
                word |= np.uint64(text[place]) << np.uint64(8 * (place - first))
            state = _mix(state ^ word)
        hashes[row] = state
    return hashes


@njit
def _mix(value: np.uint64) -> np.uint64:
    z = (value ^ (value >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    return z ^ (z >> np.uint64(31))


@njit
def same_text(a_offsets: NodeIds, a_text: Text, a: int, b_offsets: NodeIds, b_text: Text, b: int) -> bool:
    """Whether string ``a`` of one array equals string ``b`` of another."""
    start, other = a_offsets[a], b_offsets[b]
    length = a_offsets[a + 1] - start
    if length != b_offsets[b + 1] - other:
        return False
    place = 0
    while place < length and a_text[start + place] == b_text[other + place]:
        place += 1
    return bool(place == length)
