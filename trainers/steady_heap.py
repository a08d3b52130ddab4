"""Memory that tensors free is kept for the next ones while a training goes on.

The C library asks the system for every block above 32 MiB, and gives it back when it is freed. A step frees a dozen of
them, which the next step then gets as fresh pages: on two cores that took a tenth of the step.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_KEPT = {_MMAP_MAX: 0, _TRIM_THRESHOLD: (1 << 31) - 1}
# What glibc arrives at by itself in a process that has freed large blocks; a call to mallopt ends its own adjusting.
_USUAL = {_MMAP_MAX: 65_536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}


@contextmanager
def steady_heap() -> Iterator[None]:
    """Keep what is freed within the block, give it back at its end; does nothing where it is not glibc."""
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    try:
        for parameter, value in _KEPT.items():
            library.mallopt(parameter, value)
        yield
    finally:
        for parameter, value in _USUAL.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)
