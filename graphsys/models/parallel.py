"""Runs compiled loops over rows on as many threads as torch may use."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
import torch

Function = TypeVar("Function", bound=Callable[..., Any])
Offsets = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_LEAST_WORK = 1 << 14  # rows, edges or entries below which another thread costs more than it saves


def kernel(function: Function) -> Function:
    """Compile ``function`` without the interpreter lock; cache the machine code on disk.

    Sums may be reordered within a row, so that they fill vector registers: always in the same way on one processor.
    """
    compiled = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract"})(function)
    return cast(Function, compiled)


def over_ranges(cuts: Sequence[int], function: Callable[..., None], *arguments: object) -> None:
    """Call ``function(start, stop, *arguments)`` for each pair of neighbouring ``cuts``, at the same time.

    ``function`` is a :func:`kernel` that writes what belongs to a row without looking at other rows' results, so that
    the cuts do not change them.
    """
    if len(cuts) == 2:
        function(*cuts, *arguments)
        return
    # Threads of its own: a pool kept between calls would be dead in a process forked meanwhile.
    with ThreadPoolExecutor(len(cuts) - 1, thread_name_prefix="graphsys-rows") as pool:
        tasks = [pool.submit(function, start, stop, *arguments) for start, stop in pairwise(cuts)]
    for task in tasks:
        task.result()


def even_cuts(count: int) -> list[int]:
    """Return the ends of one range of [0, count) per thread."""
    parts = _parts(count)
    return [count * part // parts for part in range(parts + 1)]


def cuts_by_edges(indptr: Offsets) -> list[int]:
    """Return the ends of one range of rows per thread, of as many rows and edges each; ``indptr`` [n + 1] is from 0."""
    weight = indptr + np.arange(indptr.shape[0])
    parts = _parts(int(weight[-1]))
    inner = np.searchsorted(weight, [int(weight[-1]) * part // parts for part in range(1, parts)])
    return [0, *inner.tolist(), indptr.shape[0] - 1]


def _parts(work: int) -> int:
    return max(1, min(torch.get_num_threads(), work // _LEAST_WORK))
