"""Dropout that costs a CPU one pass over the memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from graphsys.models.parallel import even_cuts, kernel, over_ranges

_LEVELS = 1 << 32


def dropout(x: Tensor, *, p: float, training: bool) -> Tensor:
    """Return ``x`` with a share ``p`` of its entries set to zero and the rest scaled up to keep the mean.

    On a CPU, torch draws one number per entry on one thread and keeps a mask. Here an entry's fate is a hash of its
    place and of two numbers drawn from torch's generator, so it is the same on any number of threads, and the gradient
    makes it again; ``p`` is rounded to a multiple of 2**-32.

    Args:
        x: [V, D] floating point.
        p: Share to drop, in [0, 1).
    """
    if not training or p == 0 or x.device.type != "cpu" or x.dtype != torch.float32:
        return functional.dropout(x, p=p, training=training)
    apply: Callable[..., Tensor] = _Dropout.apply
    return apply(x, torch.randint(_LEVELS, (2,)), p)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, key: Tensor, p: float) -> Tensor:
        ctx.key, ctx.p = key, p
        return _dropped(x, key, p)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _dropped(grads[0], ctx.key, ctx.p), None, None


def _dropped(x: Tensor, key: Tensor, p: float) -> Tensor:
    source = x.detach().contiguous()
    out = torch.empty_like(source)
    first, second = (np.uint32(number) for number in key.tolist())
    limit, scale = np.uint32(min(round(p * _LEVELS), _LEVELS - 1)), np.float32(1 / (1 - p))
    values, result = source.view(-1).numpy(), out.view(-1).numpy()
    over_ranges(even_cuts(values.shape[0]), _drop, values, first, second, limit, scale, result)
    return out


@kernel
def _drop(
    start: int,
    stop: int,
    values: npt.NDArray[np.float32],  # [*]
    first: np.uint32,
    second: np.uint32,
    limit: np.uint32,  # entries whose hash lies below it are dropped
    scale: np.float32,
    result: npt.NDArray[np.float32],  # out [*]
) -> None:
    """Drop or scale each entry.

    Source:
        The two-round hash of 32 bits with the lowest known bias (C. Wellons, hash-prospector, 2018); the second key
        goes in between the rounds.
    """
    for place in range(start, stop):
        # Every step is cast back: numba widens 32 bits to 64, which would fill half as many lanes.
        word = np.uint32(np.uint32(place) + first)
        word = np.uint32(word ^ (word >> np.uint32(16)))
        word = np.uint32(word * np.uint32(0x21F0AAAD))
        word = np.uint32(word ^ (word >> np.uint32(15)))
        word = np.uint32(np.uint32(word + second) * np.uint32(0xD35A2D97))
        word = np.uint32(word ^ (word >> np.uint32(15)))
        result[place] = values[place] * (scale if word >= limit else np.float32(0))
