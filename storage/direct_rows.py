"""Scattered rows of a flat array by direct reads that leave the page cache alone, many of them in flight."""

from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import numpy as np

from graphsys.core.types import NodeIds
from graphsys.storage.direct import Bytes, DirectFile, Words, aligned_empty
from graphsys.storage.extent_reads import read_extents
from graphsys.storage.jit import njit
from graphsys.storage.ring import Ring, open_ring
from graphsys.storage.row_extents import RowExtents

GATHER_THREADS = 32  # reads in flight; a device reaches its rate only with many
GATHER_RINGS = 2  # of io_uring: each has one thread, which copies rows while the others' reads are under way
_PARTS_PER_THREAD = 4

Engine = Literal["io_uring", "threads"]


class DirectRows:
    """Rows of a flat array, read when asked for; near rows share one read. Safe to use from several threads.

    Args:
        path: the array's file.
        extents: which rows share a read.
        threads: reads in flight, where they go through threads.
        rings: whether reads go through io_uring where it can be had.
    """

    def __init__(self, path: Path, extents: RowExtents, *, threads: int = GATHER_THREADS, rings: bool = True) -> None:
        self._extents = extents
        self._file = DirectFile(path)
        self._rings = self._open_rings() if rings and self._file.direct else []
        workers = len(self._rings) or threads
        # More parts than threads, so that one slow read does not leave the others idle; a ring has none idle.
        self._parts = workers if self._rings else _PARTS_PER_THREAD * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="graphsys-rows")
        self._free_rings: SimpleQueue[Ring] = SimpleQueue()
        for ring in self._rings:
            self._free_rings.put(ring)
        self._buffers: SimpleQueue[Bytes] = SimpleQueue()
        for _ in range(workers):
            self._buffers.put(aligned_empty(extents.buffer_nbytes))

    @property
    def engine(self) -> Engine:
        """What keeps reads in flight."""
        return "io_uring" if self._rings else "threads"

    def _open_rings(self) -> list[Ring]:
        opened = (open_ring(self._extents.buffer_nbytes) for _ in range(GATHER_RINGS))
        return [ring for ring in opened if ring is not None]

    def gather(self, ascending: NodeIds, order: NodeIds, out: Words) -> int:
        """Write row ``ascending[i]`` into ``out[order[i]]``; blocks until all rows are in.

        Args:
            ascending: [V] int64 row numbers in range, ascending, repeats allowed.
            order: [V] int64 places in ``out``.
            out: [*, D] words, C-contiguous, owned by the caller.

        Returns:
            Bytes read.

        Raises:
            CorruptError: The file is truncated.
            DiskError: The system refused a read.
        """
        first = self._extents.split(ascending)
        num_extents = first.shape[0] - 1
        cuts = np.linspace(0, num_extents, min(self._parts, num_extents) + 1).astype(np.int64)
        gather_part = self._gather_by_ring if self._rings else self._gather_part
        tasks = [
            self._pool.submit(gather_part, first[start : stop + 1], ascending, order, out)
            for start, stop in pairwise(cuts)
        ]
        wait(tasks)  # all of them, also after a failure: they write into the caller's buffer
        return sum(task.result() for task in tasks)

    def _gather_part(self, first: NodeIds, ascending: NodeIds, order: NodeIds, out: Words) -> int:
        buffer = self._buffers.get()
        done, read_bytes = 0, 0
        try:
            while done < first.shape[0] - 1:
                if self._file.direct:
                    taken, nbytes = read_extents(self._file.fileno, first[done:], ascending, order, buffer, out)
                    done, read_bytes = done + taken, read_bytes + nbytes
                if done < first.shape[0] - 1:  # a buffered file, or a read that failed: this one says why
                    read_bytes += self._gather_extent(first[done : done + 2], ascending, order, buffer, out)
                    done += 1
        finally:
            self._buffers.put(buffer)
        return read_bytes

    def _gather_by_ring(self, first: NodeIds, ascending: NodeIds, order: NodeIds, out: Words) -> int:
        ring = self._free_rings.get()
        try:
            done, read_bytes = ring.read_extents(self._file.fileno, first, ascending, order, out)
        finally:
            self._free_rings.put(ring)
        left = np.flatnonzero(~done)
        if left.shape[0]:
            buffer = self._buffers.get()
            try:  # reads that failed: these say why
                for index in left:
                    read_bytes += self._gather_extent(first[index : index + 2], ascending, order, buffer, out)
            finally:
                self._buffers.put(buffer)
        return read_bytes

    def _gather_extent(self, first: NodeIds, ascending: NodeIds, order: NodeIds, buffer: Bytes, out: Words) -> int:
        place = slice(first[0], first[1])
        rows, read_bytes = self._extents.read(self._file, ascending[place], buffer)
        _scatter(rows, ascending[place], order[place], out)
        return read_bytes

    def close(self) -> None:
        """Wait for reads in flight, then close the file."""
        self._pool.shutdown()
        for ring in self._rings:
            ring.close()
        self._rings = []
        self._file.close()


@njit
def _scatter(rows: Words, ascending: NodeIds, order: NodeIds, out: Words) -> None:
    """Write row ``ascending[i]`` into ``out[order[i]]``; ``rows`` start at ``ascending[0]``."""
    for index in range(ascending.shape[0]):
        source, place = ascending[index] - ascending[0], order[index]
        for column in range(rows.shape[1]):
            out[place, column] = rows[source, column]
