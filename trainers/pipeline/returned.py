"""Memory given back to the system."""

import ctypes


def return_memory() -> None:
    """Give the system back what has been freed.

    The C library keeps blocks of up to 32 MiB for later calls, which the arrays of a graph's preparation are made of;
    training has no use for them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others have none
    if trim is not None:
        trim(0)
