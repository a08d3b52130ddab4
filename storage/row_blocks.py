"""Runs of rows of a flat array, read ahead by direct reads: what a pass over an array is made of."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from graphsys.core.types import Array
from graphsys.storage.direct import PAGE, Bytes, DirectFile, align_down, align_up, aligned_empty
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray

READS = 3  # in flight; with 4 MiB each, more were not faster


def cut_rows(start: int, stop: int, block_rows: int) -> list[tuple[int, int]]:
    """Return [start, stop) in consecutive ranges of ``block_rows`` rows, the last one shorter."""
    return [(first, min(first + block_rows, stop)) for first in range(start, stop, block_rows)]


def blocks_nbytes(row_nbytes: int, block_rows: int, *, reads: int = READS) -> int:
    """Return the bytes of buffers that :func:`read_blocks` holds."""
    return (reads + 1) * _buffer_nbytes(row_nbytes, block_rows)


def read_blocks(
    array: FlatArray,
    blocks: Iterable[tuple[int, int]],
    *,
    block_rows: int,
    reads: int = READS,
    count: ReadCount | None = None,
) -> Generator[tuple[int, Array], None, None]:
    """Yield (first row, rows [*, ...]) of every block in order; rows are valid until the next step.

    Args:
        blocks: Ranges [start, stop) of at least one row and at most ``block_rows``.
        reads: Reads in flight while the caller works.
        count: Where to add the bytes read.

    Raises:
        CorruptError: The file is truncated.
        DiskError: The system refused.
    """
    nbytes = _buffer_nbytes(array.spec.row_nbytes, block_rows)
    buffers = [aligned_empty(nbytes) for _ in range(reads + 1)]
    pending: deque[tuple[int, Future[Array]]] = deque()
    with DirectFile(array.path) as file, ThreadPoolExecutor(reads, thread_name_prefix="graphsys-blocks") as pool:
        for turn, (start, stop) in enumerate(blocks):
            buffer = buffers[turn % len(buffers)]
            pending.append((start, pool.submit(_read, array, file, start, stop, buffer, count)))
            if len(pending) > reads:
                first, rows = pending.popleft()
                yield first, rows.result()
        for first, rows in pending:
            yield first, rows.result()


def _buffer_nbytes(row_nbytes: int, block_rows: int) -> int:
    return align_up(block_rows * row_nbytes) + PAGE  # rows need not start on a page


def _read(array: FlatArray, file: DirectFile, start: int, stop: int, buffer: Bytes, count: ReadCount | None) -> Array:
    row = array.spec.row_nbytes
    begin = align_down(start * row)
    raw = buffer[: align_up(stop * row) - begin]
    file.read_into(begin, raw)
    if count is not None:
        count.add(useful_bytes=0, read_bytes=raw.nbytes)
    wanted = raw[start * row - begin : stop * row - begin]
    rows: Array = wanted.view(array.spec.dtype).reshape(stop - start, *array.spec.row_shape)
    return rows
