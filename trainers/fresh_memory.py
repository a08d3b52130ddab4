"""How fast memory is touched for the first time.

A virtual machine whose host takes free pages back gets them again at a tenth of the usual speed, or less.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from graphsys.core.machine import cores
from graphsys.core.units import MIB
from graphsys.storage.direct import aligned_empty

_MOST_BYTES = 256 * MIB
_SHARE = 8  # of the memory, as a divisor


def time_fresh_memory(memory: int) -> float:
    """Return the seconds per byte in which all cores together touch fresh memory.

    To be called before much else is done: what was freed a moment ago is not fresh.

    Args:
        memory: bytes that the run may take; some of them are touched.
    """
    nbytes = max(min(memory // _SHARE, _MOST_BYTES), 1)
    started = time.perf_counter()
    space = aligned_empty(nbytes)
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(lambda part: np.copyto(part, 0), np.array_split(space, cores())))
    return (time.perf_counter() - started) / nbytes
