"""Reads a file from front to back past the page cache, with several reads in flight."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor

from graphsys.core.units import MIB
from graphsys.storage.direct import PAGE, Bytes, DirectFile, align_down, align_up, aligned_empty

READS_IN_FLIGHT = 4
BLOCK_BYTES = 4 * MIB
FULL_SPEED_BYTES = (READS_IN_FLIGHT + 1) * BLOCK_BYTES  # of buffers; more memory makes no difference


def read_through(file: DirectFile, nbytes: int, *, memory: int = FULL_SPEED_BYTES) -> Generator[Bytes, None, None]:
    """Yield the first ``nbytes`` bytes of ``file`` in order, a block at a time; a block is valid until the next step.

    Args:
        memory: Bytes that the buffers may take; at least a page each.

    Raises:
        DiskError: The system refused.
        CorruptError: The file ends before the bytes it should hold.
    """
    num_buffers = READS_IN_FLIGHT + 1  # one of them is in the caller's hands
    block = max(PAGE, min(BLOCK_BYTES, align_down(memory // num_buffers), align_up(nbytes)))
    starts = range(0, nbytes, block)
    buffers = [aligned_empty(block) for _ in range(min(num_buffers, len(starts)))]
    with ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="graphsys-read-through") as pool:

        def begin(index: int) -> Future[None]:
            return pool.submit(file.read_into, starts[index], buffers[index % num_buffers])

        pending = deque(begin(index) for index in range(min(READS_IN_FLIGHT, len(starts))))
        for index, start in enumerate(starts):
            pending.popleft().result()
            if index + READS_IN_FLIGHT < len(starts):
                pending.append(begin(index + READS_IN_FLIGHT))
            yield buffers[index % num_buffers][: min(block, nbytes - start)]
