"""The exponential linear unit with the same bits on any number of threads."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from graphsys.models.parallel import even_cuts, kernel, over_ranges

Floats = npt.NDArray[np.float32]


def elu(x: Tensor) -> Tensor:
    """Return ``x`` where it is positive and ``exp(x) - 1`` elsewhere, in the memory of ``x``.

    torch computes exponentials several at a time, and singly at the end of each thread's part, which may differ in the
    last bit. Here every one is computed singly.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or not x.is_contiguous():
        return functional.elu(x, inplace=True)
    apply: Callable[..., Tensor] = _Elu.apply
    return apply(x)


class _Elu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        flat = x.detach().numpy().reshape(-1)
        over_ranges(even_cuts(flat.shape[0]), _bend, flat)
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return torch.where(out > 0, grads[0], grads[0] * (out + 1))


@kernel
def _bend(start: int, stop: int, values: Floats) -> None:
    for place in range(start, stop):
        if values[place] <= 0:
            values[place] = np.expm1(values[place])
