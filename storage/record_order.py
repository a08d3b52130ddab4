"""Kernels of the external sort: spread records over buckets, and order one bucket."""

import numpy as np
import numpy.typing as npt

from graphsys.storage.jit import njit

Records = npt.NDArray[np.uint64]  # [C, W] keys, then payload
Order = npt.NDArray[np.int64]


@njit
def scatter(
    records: Records,
    start: int,
    column: int,
    low: np.uint64,
    shift: np.uint64,
    buffer: npt.NDArray[np.uint64],
    fill: npt.NDArray[np.int64],
) -> tuple[int, int]:
    """Copy records from row ``start`` on into their buckets' buffers until one is full.

    Args:
        records: [C, W].
        buffer: [buckets, rows, W] written behind ``fill``.
        fill: [buckets] rows in use, advanced.

    Returns:
        The first row that was not copied, and the bucket whose buffer is full or -1.
    """
    rows, words = buffer.shape[1], buffer.shape[2]
    for row in range(start, records.shape[0]):
        bucket = np.int64((records[row, column] - low) >> shift)
        place = fill[bucket]
        for word in range(words):
            buffer[bucket, place, word] = records[row, word]
        fill[bucket] = place + 1
        if place + 1 == rows:
            return row + 1, int(bucket)
    return records.shape[0], -1


def sort_records(records: Records, num_keys: int) -> Records:
    """Return ``records`` [C, W] in ascending order of their first ``num_keys`` words; equal keys keep their order.

    Records of one word are sorted in place.
    """
    if records.shape[1] == 1:
        records[:, 0].sort()
        return records
    key = _packed_key(records, num_keys)
    if key is None:
        return records[np.lexsort(tuple(records[:, column] for column in range(num_keys - 1, -1, -1)))]
    order = np.argsort(key)  # vectorised, but not stable
    _restore_ties(key, order)
    return records[order]


def _packed_key(records: Records, num_keys: int) -> Records | None:
    """Return one key [C] that orders like all of them, or None when their ranges need over 64 bits."""
    if num_keys == 1 or records.shape[0] == 0:
        return records[:, 0].copy()
    lows = records[:, :num_keys].min(axis=0)
    bits = [int(span).bit_length() for span in records[:, :num_keys].max(axis=0) - lows]
    if sum(bits) > 64:
        return None
    key: Records = records[:, 0] - lows[0]
    for column in range(1, num_keys):
        key <<= np.uint64(bits[column])
        key |= records[:, column] - lows[column]
    return key


@njit
def _restore_ties(key: Records, order: Order) -> None:
    """Put the rows of every run of equal keys back into ascending order."""
    start = 0
    for end in range(1, order.shape[0] + 1):
        if end == order.shape[0] or key[order[end]] != key[order[start]]:
            if end - start > 1:
                order[start:end].sort()
            start = end
