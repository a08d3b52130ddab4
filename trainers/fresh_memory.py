"""How fast memory is touched for the first time.

A virtual machine whose host takes free pages back gets them again at a tenth of the usual speed, or less.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np

from graphsys.core.machine import cores
from graphsys.core.units import GIB, MIB
from graphsys.storage.direct import Bytes, aligned_empty

_MOST_BYTES = GIB  # the first half gigabyte is often one that another process has just given back
_SHARE = 4  # of the memory, as a divisor
_BLOCK_BYTES = 64 * MIB
_LAST = 4  # blocks that count


def time_fresh_memory(memory: int) -> float:
    """Return the seconds per byte in which all cores together touch fresh memory.

    To be called before much else is done: what was freed a moment ago is not fresh.

    Args:
        memory: bytes that the run may take; some of them are touched.
    """
    nbytes = max(min(memory // _SHARE, _MOST_BYTES), 1)
    block = min(nbytes, _BLOCK_BYTES)
    held: list[Bytes] = []  # none is given back before the last one is touched
    seconds: list[float] = []
    with ThreadPoolExecutor(cores()) as pool:
        for _ in range(nbytes // block):
            started = time.perf_counter()
            held.append(aligned_empty(block))
            list(pool.map(lambda part: np.copyto(part, 0), np.array_split(held[-1], cores())))
            seconds.append(time.perf_counter() - started)
    return median(seconds[-_LAST:]) / block
