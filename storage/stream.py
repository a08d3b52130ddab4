"""Copies of rows past the processor's caches: where rows are written once and read much later, that saves a third.

An ordinary write first brings the line that it overwrites into the cache. A batch is far larger than the caches, so
that line is neither wanted nor kept.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy.typing as npt
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from graphsys.core.units import MIB
from graphsys.storage.jit import njit

Flat = npt.NDArray[Any]  # one axis, contiguous

LINE_NBYTES = 64
_LEAST_NBYTES = 4 * MIB  # what stays in a core's own caches is better written there


def streams(target: npt.NDArray[Any], row_nbytes: int) -> bool:
    """Return whether rows of ``row_nbytes`` are copied into ``target`` by whole lines, and it is worth doing so."""
    aligned = target.ctypes.data % LINE_NBYTES == 0 and row_nbytes % LINE_NBYTES == 0
    return aligned and target.nbytes >= _LEAST_NBYTES


def _copy_line(_context: Any, target: Any, place: Any, source: Any, start: Any, line: Any) -> Any:
    """Describe to numba a copy of the line ``line`` of a row; a store that bypasses the caches must be aligned."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(ir.IntType(64), LINE_NBYTES // 8).as_pointer()

        def address(array: int, at: int) -> Any:
            data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
            row = builder.bitcast(builder.gep(data, [arguments[at]]), vector)
            return builder.gep(row, [arguments[4]])

        load = builder.load(address(2, 3))
        load.align = 1
        store = builder.store(load, address(0, 1))
        store.align = LINE_NBYTES
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(target, place, source, start, line), generate


def _fence(_context: Any) -> Any:
    """Describe a fence: such stores are not ordered by locks on every processor."""

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), generate


_copy = cast(Callable[[Flat, int, Flat, int, int], None], intrinsic(_copy_line))

# fence(): what this thread streamed is there for all others; for kernels only, behind their last row.
fence = cast(Callable[[], None], intrinsic(_fence))


@njit
def stream_row(target: Flat, place: int, source: Flat, start: int, num_lines: int) -> None:
    """Copy ``num_lines`` lines from the item ``start`` of ``source`` to the item ``place`` of ``target``, aligned.

    For kernels. Both arrays have items of the same size.
    """
    for line in range(num_lines):
        _copy(target, place, source, start, line)
