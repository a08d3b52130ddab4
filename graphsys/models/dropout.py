"""Dropout that costs a CPU little more than a pass over the memory."""

import torch
from torch import Tensor
from torch.nn import functional

_LEVELS = 1 << 16


def dropout(x: Tensor, *, p: float, training: bool) -> Tensor:
    """Return ``x`` with a share ``p`` of its entries set to zero and the rest scaled up to keep the mean.

    On a CPU, torch draws one random number per entry on one thread, which took 80 % of the forward pass of a wide
    first layer. Here each 64-bit draw decides four entries, and ``p`` is rounded to a multiple of 1/65536.

    Args:
        x: [V, D] floating point.
        p: Share to drop, in [0, 1).
    """
    if not training or p == 0 or x.device.type != "cpu":
        return functional.dropout(x, p=p, training=training)
    num_dropped = round(p * _LEVELS)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64)
    words.random_(torch.iinfo(torch.int64).min, None)
    draw = words.view(torch.int16)[: x.numel()].view(x.shape)
    # Filling by a mask is three times slower than this product.
    factor = (draw >= num_dropped - _LEVELS // 2).to(x.dtype).mul_(_LEVELS / (_LEVELS - num_dropped))
    return x * factor if x.requires_grad else factor.mul_(x)
