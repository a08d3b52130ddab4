"""Reads through io_uring: hundreds in flight for one thread, and no thread put to sleep and woken for each.

The kernel's interface is that of liburing, whose C functions the package of the same name carries. The package is
optional, and a kernel or a container may refuse rings; :func:`open_ring` says so, and reads go through threads then.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import llvmlite.binding as llvm
import numpy as np
import numpy.typing as npt
from numba import types

from graphsys.core.types import NodeIds
from graphsys.storage.direct import PAGE, WORD, Bytes, Words, aligned_empty
from graphsys.storage.jit import njit

DEPTH = 32  # reads in flight of one ring
_EINTR = 4
_CQE_WORDS = 2  # user data; result and flags
_RESULT = np.uint64(0xFFFFFFFF)

_ADDRESS, _U32, _U64 = types.uintp, types.uint32, types.uint64


def _c(name: str, *signature: Any) -> Callable[..., Any]:
    result, *arguments = signature
    return cast(Callable[..., Any], types.ExternalFunction(name, result(*arguments)))


_get_sqe = _c("io_uring_get_sqe", _ADDRESS, _ADDRESS)
_prep_read = _c("io_uring_prep_read", types.void, _ADDRESS, types.int32, _ADDRESS, _U32, _U64)
_set_data = _c("io_uring_sqe_set_data64", types.void, _ADDRESS, _U64)
_submit_and_wait = _c("io_uring_submit_and_wait", types.int32, _ADDRESS, _U32)
_peek = _c("io_uring_peek_batch_cqe", _U32, _ADDRESS, _ADDRESS, _U32)
_advance = _c("io_uring_cq_advance", types.void, _ADDRESS, _U32)
_memcpy = _c("memcpy", _ADDRESS, _ADDRESS, _ADDRESS, _ADDRESS)


@cache
def _library() -> ctypes.CDLL | None:
    """Load liburing once, so that kernels find its functions by their names; None where it is not installed."""
    spec = find_spec("liburing")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / "liburing.so"
        if path.is_file():
            llvm.load_library_permanently(str(path))
            return ctypes.CDLL(str(path))
    return None


class Ring:
    """One io_uring with a buffer for each read in flight. For one thread at a time; see :func:`open_ring`.

    Args:
        library: liburing, loaded.
        state: liburing's struct, initialised.
        slot_nbytes: bytes of a buffer.
    """

    def __init__(self, library: ctypes.CDLL, state: Bytes, slot_nbytes: int) -> None:
        self._library = library
        self._state = state
        self._buffer = aligned_empty(DEPTH * slot_nbytes)
        self._slot_nbytes = slot_nbytes
        self._free = np.arange(DEPTH, dtype=np.int64)
        self._extent = np.empty(DEPTH, np.int64)  # which one each slot reads
        self._completed = np.empty(DEPTH, np.uint64)  # addresses of completions
        self._completion = np.empty(_CQE_WORDS, np.uint64)
        self.usable = True

    def read_extents(
        self, fileno: int, first: NodeIds, ascending: NodeIds, order: NodeIds, out: Words
    ) -> tuple[npt.NDArray[np.bool_], int]:
        """Read extents, as :func:`graphsys.storage.extent_reads.read_extents`, and leave out what cannot be read whole.

        Returns:
            [K] which extents were read, and the bytes read. A ring that the kernel refuses to go on with reads no more
            and is not :attr:`usable`.
        """
        done = np.zeros(first.shape[0] - 1, np.bool_)
        if not self.usable:
            return done, 0
        self._free[:] = np.arange(DEPTH)
        read_bytes, self.usable = _read(
            self._state.ctypes.data, fileno, first, ascending, order,
            self._buffer.view(np.uint32), self._buffer.ctypes.data, self._slot_nbytes,
            self._free, self._extent, self._completed, self._completed.ctypes.data,
            self._completion, self._completion.ctypes.data, out, done,
        )  # fmt: skip
        return done, int(read_bytes)

    def close(self) -> None:
        """Give the ring back to the kernel, which holds on to buffers of reads in flight until they end."""
        self._library.io_uring_queue_exit(ctypes.c_void_p(self._state.ctypes.data))


def open_ring(slot_nbytes: int) -> Ring | None:
    """Open a ring whose buffers take ``slot_nbytes`` bytes, a multiple of 4096.

    Returns:
        None where liburing is not installed, or the kernel or a container's rules allow no ring.
    """
    library = _library()
    if library is None:
        return None
    state = aligned_empty(PAGE)
    state[:] = 0
    refused = library.io_uring_queue_init(ctypes.c_uint(DEPTH), ctypes.c_void_p(state.ctypes.data), ctypes.c_uint(0))
    return None if refused else Ring(library, state, slot_nbytes)


@njit
def _read(
    ring: int,
    fileno: int,
    first: NodeIds,
    ascending: NodeIds,
    order: NodeIds,
    values: Words,
    address: int,
    slot_nbytes: int,
    free: NodeIds,
    extent_of: NodeIds,
    completed: npt.NDArray[np.uint64],
    completed_address: int,
    completion: npt.NDArray[np.uint64],
    completion_address: int,
    out: Words,
    done: npt.NDArray[np.bool_],
) -> tuple[int, bool]:
    """Keep reads in flight until every extent was tried; copy the rows of each as it arrives.

    Args:
        ring: address of liburing's struct.
        values: [depth * slot_nbytes / 4] words of all buffers, at ``address``.
        free: [depth] slots in no use.
        done: [K] set for extents that were read whole.

    Returns:
        Bytes read, and whether the kernel took every request.
    """
    row_nbytes, depth, num_extents = WORD * out.shape[1], free.shape[0], first.shape[0] - 1
    read_bytes, tried, in_flight, refusals = 0, 0, 0, 0
    while in_flight > 0 or (tried < num_extents and refusals == 0):
        while in_flight < depth and tried < num_extents and refusals == 0:
            request = _get_sqe(np.uintp(ring))
            if request == 0:  # the queue is full until the next submission
                break
            slot = free[depth - in_flight - 1]
            start, nbytes = _span(first[tried], first[tried + 1], ascending, row_nbytes)
            _prep_read(
                request, np.int32(fileno), np.uintp(address + slot * slot_nbytes), np.uint32(nbytes), np.uint64(start)
            )
            _set_data(request, np.uint64(slot))
            extent_of[slot] = tried
            tried += 1
            in_flight += 1
        code = _submit_and_wait(np.uintp(ring), np.uint32(min(in_flight, depth // 2)))
        if code < 0 and code != -_EINTR:
            refusals += 1
            if refusals > 1:  # not even for those in flight: they end without us
                break
        count = _peek(np.uintp(ring), np.uintp(completed_address), np.uint32(depth))
        for index in range(count):
            _memcpy(np.uintp(completion_address), np.uintp(completed[index]), np.uintp(8 * _CQE_WORDS))
            slot, found = np.int64(completion[0]), np.int64(np.int32(completion[1] & _RESULT))
            extent = extent_of[slot]
            low, high = first[extent], first[extent + 1]
            start, nbytes = _span(low, high, ascending, row_nbytes)
            if start + found >= (ascending[high - 1] + 1) * row_nbytes:
                _copy(values, int((slot * slot_nbytes - start) // WORD), ascending[low:high], order[low:high], out)
                done[extent] = True
                read_bytes += nbytes
            in_flight -= 1
            free[depth - in_flight - 1] = slot
        _advance(np.uintp(ring), np.uint32(count))
    return read_bytes, refusals == 0


@njit
def _span(low: int, high: int, ascending: NodeIds, row_nbytes: int) -> tuple[int, int]:
    """Return where the pages of an extent's rows start, and how many bytes they take."""
    start = ascending[low] * row_nbytes // PAGE * PAGE
    return start, -(-(ascending[high - 1] + 1) * row_nbytes // PAGE) * PAGE - start


@njit
def _copy(values: Words, base: int, rows: NodeIds, places: NodeIds, out: Words) -> None:
    """Write row ``rows[i]`` into ``out[places[i]]``; row 0 would lie at ``values[base]``."""
    width = out.shape[1]
    for index in range(rows.shape[0]):
        word, place = base + rows[index] * width, places[index]
        for column in range(width):
            out[place, column] = values[word + column]
