"""numba's compiler with types kept, and the two settings that every kernel here shares."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_PREFETCH = "llvm.prefetch.p0"

Function = TypeVar("Function", bound=Callable[..., Any])


def njit(function: Function) -> Function:
    """Compile ``function`` without the interpreter lock and cache the machine code on disk.

    Parallelism comes from Python threads that run one batch or slice each; numba's own thread pool must not be entered
    from several of them.
    """
    return cast(Function, numba.njit(nogil=True, cache=True)(function))


def njit_any_order(function: Function) -> Function:
    """As :func:`njit`, and float sums may be taken in any order and fused: several times faster, not bit for bit."""
    return cast(Function, numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})(function))


def _prefetch(_context: Any, array: Any, index: Any) -> Any:
    """Describe the call to numba: its types, and the code that it becomes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        address = builder.bitcast(builder.gep(view.data, [arguments[1]]), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        function = builder.module.globals.get(_PREFETCH) or ir.Function(builder.module, kind, _PREFETCH)
        builder.call(function, [address, word(0), word(3), word(1)])  # a read, to be kept near, of data
        return context.get_dummy_value()

    return types.void(array, index), generate


# prefetch(array, index): ask for the cache line of array[index] (one axis, contiguous), nothing else; for kernels only.
prefetch = cast(Callable[[npt.NDArray[Any], int | np.int64], None], intrinsic(_prefetch))
