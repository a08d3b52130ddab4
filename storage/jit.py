"""numba's compiler with types kept, and the two settings that every kernel here shares."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def njit(function: Function) -> Function:
    """Compile ``function`` without the interpreter lock and cache the machine code on disk.

    Parallelism comes from Python threads that run one batch or slice each; numba's own thread pool must not be entered
    from several of them.
    """
    return cast(Function, numba.njit(nogil=True, cache=True)(function))
