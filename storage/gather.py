"""The gather seam: one pass that brings a batch's rows together from cache slots and from the rows just read.

Rows stay encoded in the cache and in windows and are decoded on their way out. A device with its own memory gives
another implementation; nothing else knows where rows lie.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import CorruptError
from graphsys.core.types import Features
from graphsys.storage.codec import element_type
from graphsys.storage.direct import Bytes
from graphsys.storage.gather_kernels import (
    copy_rows,
    gather_bfloat16,
    gather_float16,
    gather_float32,
    gather_int8,
    stream_float32,
    stream_slots,
)
from graphsys.storage.stream import streams

Ints = npt.NDArray[np.int32]

_SPLIT_ROWS = 4096  # fewer rows than this per thread are not worth a hand-over
_KERNELS: dict[str, Callable[..., None]] = {
    "float32": gather_float32,
    "float16": gather_float16,
    "bfloat16": gather_bfloat16,
    "int8": gather_int8,
}


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
        # numba knows no float16: halves travel as their bits.
        item = element_type(codec)
        self._type = np.dtype(np.uint16) if item == np.float16 else item
        self._kernel = _KERNELS[codec]
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="graphsys-gather") if threads > 1 else None

    def gather(self, rows: Bytes, cache: Bytes, source: Ints, out: Features) -> None:
        """See :meth:`RowGather.gather`."""
        _check(source, -cache.shape[0], rows.shape[0], "the sources of a batch")
        fetched, held = self._values(rows), self._values(cache)
        streamed = self._kernel is gather_float32 and streams(out, out.shape[1] * out.itemsize)
        kernel = stream_float32 if streamed else self._kernel
        self._share(source.shape[0], lambda part: kernel(fetched, held, source[part], out[part]))

    def insert(self, rows: Bytes, cache: Bytes, row: Ints, slot: Ints) -> None:
        """See :meth:`RowGather.insert`."""
        _check(row, 0, rows.shape[0], "the rows that enter the cache")
        _check(slot, 0, cache.shape[0], "the slots that rows enter")
        words, slots = rows.view(np.uint64), cache.view(np.uint64)
        copy = stream_slots if streams(cache, cache.shape[1]) else copy_rows
        self._share(row.shape[0], lambda part: copy(words, slots, row[part], slot[part]))

    def _values(self, raw: Bytes) -> npt.NDArray[Any]:
        return raw.view(self._type)

    def _share(self, num_rows: int, work: Callable[[slice], None]) -> None:
        """Do ``work`` on slices of ``num_rows`` rows, one per thread."""
        parts = max(1, min(self._threads, num_rows // _SPLIT_ROWS))
        if self._pool is None or parts == 1:
            work(slice(0, num_rows))
            return
        cuts = np.linspace(0, num_rows, parts + 1).astype(np.int64)
        tasks = [self._pool.submit(work, slice(start, stop)) for start, stop in pairwise(cuts)]
        wait(tasks)
        for task in tasks:
            task.result()

    def close(self) -> None:
        """See :meth:`RowGather.close`."""
        if self._pool is not None:
            self._pool.shutdown()


def _check(index: Ints, low: int, stop: int, what: str) -> None:
    if index.shape[0] and (index.min() < low or index.max() >= stop):
        wrong = index.min() if index.min() < low else index.max()
        raise CorruptError(f"{what} name place {wrong}, but places are {low} to {stop - 1}; make the window again")
