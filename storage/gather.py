"""The gather seam: one pass that brings a batch's rows together from cache slots and from the rows just read.

Rows stay encoded in the cache and in windows and are decoded on their way out. A device with its own memory gives
another implementation; nothing else knows where rows lie.
"""

from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import CorruptError
from graphsys.core.types import Features
from graphsys.storage.codec import element_type
from graphsys.storage.direct import Bytes
from graphsys.storage.jit import njit

Ints = npt.NDArray[np.int32]

_SPLIT_ROWS = 4096  # fewer rows than this per thread are not worth a hand-over


class RowGather(Protocol):
    """Moves rows of one width and codec."""

    def gather(self, rows: Bytes, cache: Bytes, source: Ints, out: Features) -> None:
        """Write the decoded row that ``source[i]`` names into ``out[i]``; blocks until all rows are there.

        Args:
            rows: [R, row_nbytes] uint8 encoded rows that were fetched.
            cache: [S, row_nbytes] uint8 encoded rows in cache slots.
            source: [V] int32; >= 0: index into ``rows``; < 0: slot ~source of ``cache``.
            out: [V, D] float32 buffer owned by the caller, C-contiguous.

        Raises:
            CorruptError: An index points outside ``rows`` or ``cache``; ``out`` is left unchanged.
        """

    def insert(self, rows: Bytes, cache: Bytes, row: Ints, slot: Ints) -> None:
        """Overwrite ``cache[slot[i]]`` by ``rows[row[i]]``.

        Args:
            rows: [R, row_nbytes] uint8.
            cache: [S, row_nbytes] uint8, changed in place.
            row: [I] int32 index into ``rows``.
            slot: [I] int32 distinct slots.

        Raises:
            CorruptError: As :meth:`gather`; ``cache`` is left unchanged.
        """

    def close(self) -> None:
        """Let go of threads."""


class CpuGather:
    """Gathers in main memory.

    Args:
        dim: values per row (D).
        codec: how rows are encoded.
        threads: threads that share one gather; the result does not depend on it.
    """

    def __init__(self, dim: int, codec: str, *, threads: int = 1) -> None:
        self._dim = dim
        self._type = element_type(codec)
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="graphsys-gather") if threads > 1 else None

    def gather(self, rows: Bytes, cache: Bytes, source: Ints, out: Features) -> None:
        """See :meth:`RowGather.gather`."""
        _check(source, -cache.shape[0], rows.shape[0], "the sources of a batch")
        parts = max(1, min(self._threads, source.shape[0] // _SPLIT_ROWS))
        cuts = np.linspace(0, source.shape[0], parts + 1).astype(np.int64)
        if self._pool is None or parts == 1:
            self._gather_part(rows, cache, source, out)
            return
        tasks = [
            self._pool.submit(self._gather_part, rows, cache, source[start:stop], out[start:stop])
            for start, stop in pairwise(cuts)
        ]
        wait(tasks)
        for task in tasks:
            task.result()

    def _gather_part(self, rows: Bytes, cache: Bytes, source: Ints, out: Features) -> None:
        fetched, held = self._values(rows), self._values(cache)
        if self._type == np.float32:
            _gather(fetched, held, source, out)
        else:
            _gather_halves(fetched, held, source, _half_table(), out)

    def _values(self, raw: Bytes) -> npt.NDArray[Any]:
        # numba knows no float16: halves travel as their bits.
        return raw.view(np.float32 if self._type == np.float32 else np.uint16)[:, : self._dim]

    def insert(self, rows: Bytes, cache: Bytes, row: Ints, slot: Ints) -> None:
        """See :meth:`RowGather.insert`."""
        _check(row, 0, rows.shape[0], "the rows that enter the cache")
        _check(slot, 0, cache.shape[0], "the slots that rows enter")
        _insert(rows.view(np.uint64), cache.view(np.uint64), row, slot)

    def close(self) -> None:
        """See :meth:`RowGather.close`."""
        if self._pool is not None:
            self._pool.shutdown()


def _check(index: Ints, low: int, stop: int, what: str) -> None:
    if index.shape[0] and (index.min() < low or index.max() >= stop):
        wrong = index.min() if index.min() < low else index.max()
        raise CorruptError(f"{what} name place {wrong}, but places are {low} to {stop - 1}; make the window again")


@cache
def _half_table() -> npt.NDArray[np.float32]:
    """Return [65536] the float32 value of every float16, by its bits."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


@njit
def _gather(rows: Features, cache: Features, source: Ints, out: Features) -> None:
    for place in range(source.shape[0]):
        index = source[place]
        if index >= 0:
            for column in range(out.shape[1]):
                out[place, column] = rows[index, column]
        else:
            for column in range(out.shape[1]):
                out[place, column] = cache[~index, column]


@njit
def _gather_halves(
    rows: npt.NDArray[np.uint16], cache: npt.NDArray[np.uint16], source: Ints, halves: Features, out: Features
) -> None:
    for place in range(source.shape[0]):
        index = source[place]
        if index >= 0:
            for column in range(out.shape[1]):
                out[place, column] = halves[rows[index, column]]
        else:
            for column in range(out.shape[1]):
                out[place, column] = halves[cache[~index, column]]


@njit
def _insert(rows: npt.NDArray[np.uint64], cache: npt.NDArray[np.uint64], row: Ints, slot: Ints) -> None:
    for index in range(row.shape[0]):
        for column in range(cache.shape[1]):
            cache[slot[index], column] = rows[row[index], column]
