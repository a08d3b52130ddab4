"""Attention over the in-edges of a hop.

On a CPU no message is written: compiled loops read each source's row where it lies, forward and backward, and a row's
result is one thread's work, so it does not depend on the number of threads. On other devices torch's own operations do
the same, with messages.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from graphsys.models.aggregate import transposed
from graphsys.models.attention_kernels import score_gradients, source_gradients, weigh
from graphsys.models.base import LayerHop
from graphsys.models.parallel import cuts_by_edges, over_ranges


def attend(values: Tensor, src_score: Tensor, dst_score: Tensor, hop: LayerHop, *, slope: float) -> Tensor:
    """Return each destination's mean of its own and its in-neighbours' rows, weighed by attention.

    Head h gives edge j -> i the score ``leaky_relu(src_score[j, h] + dst_score[i, h])``, the edge i -> i that every
    destination has beside those of the hop too; the weights are the softmax of a destination's scores.

    Args:
        values: [num_src, H, C] float32.
        src_score: [num_src, H] float32.
        dst_score: [num_dst, H] float32.
        hop: The edges.
        slope: Of the leaky ReLU below zero, in [0, 1].

    Returns:
        [num_dst, H, C] float32.

    Source:
        Velickovic et al. 2018 (arXiv:1710.10903), equation 3.
    """
    if values.device.type != "cpu" or values.dtype != torch.float32:
        return attend_by_messages(values, src_score, dst_score, hop, slope=slope)
    apply: Callable[..., Tensor] = _Attend.apply
    return apply(values.contiguous(), src_score.contiguous(), dst_score.contiguous(), hop, slope)


def attend_by_messages(values: Tensor, src_score: Tensor, dst_score: Tensor, hop: LayerHop, *, slope: float) -> Tensor:
    """Return what :func:`attend` returns, on any device and in any floating type, by one message per edge."""
    loop = torch.arange(hop.num_dst, device=values.device)
    src, dst = torch.cat([hop.edge_index, loop.expand(2, -1)], dim=1)
    score = functional.leaky_relu(src_score[src] + dst_score[dst], slope)
    spread = dst[:, None].expand_as(score)
    # The loop gives every destination a score, so no maximum stays infinite.
    peak = score.detach().new_full(dst_score.shape, -torch.inf).scatter_reduce_(0, spread, score.detach(), "amax")
    weight = torch.exp(score - peak[dst])
    share = weight / torch.zeros_like(dst_score).index_add(0, dst, weight)[dst]
    total = values.new_zeros(hop.num_dst, *values.shape[1:])
    return total.index_add(0, dst, values[src] * share[:, :, None])


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, src_score: Tensor, dst_score: Tensor, hop: LayerHop, slope: float) -> Tensor:
        share = values.new_empty(hop.num_edges, values.shape[1])
        own_share, out = torch.empty_like(dst_score), values.new_empty(hop.num_dst, *values.shape[1:])
        inputs = _arrays(hop.indptr, hop.indices, values, src_score, dst_score)
        over_ranges(cuts_by_edges(inputs[0]), weigh, *inputs, np.float32(slope), *_arrays(share, own_share, out))
        ctx.hop, ctx.slope = hop, slope
        ctx.save_for_backward(values, src_score, dst_score, share, own_share)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        of_out = grads[0].contiguous()
        hop: LayerHop = ctx.hop
        values, src_score, dst_score, share, own_share = ctx.saved_tensors
        of_edge, of_own, of_dst = torch.empty_like(share), torch.empty_like(own_share), torch.empty_like(dst_score)
        inputs = _arrays(hop.indptr, hop.indices, values, src_score, dst_score)
        found = _arrays(share, own_share, of_out, of_edge, of_own, of_dst)
        over_ranges(cuts_by_edges(inputs[0]), score_gradients, *inputs, np.float32(ctx.slope), *found)
        starts, destination, order = transposed(hop.indptr, hop.indices, num_src=values.shape[0])
        of_values, of_src = torch.empty_like(values), torch.empty_like(src_score)
        by_source = _arrays(starts, destination, order)
        found = _arrays(share, own_share, of_out, of_edge, of_own, of_values, of_src)
        over_ranges(cuts_by_edges(by_source[0]), source_gradients, *by_source, *found)
        return of_values, of_src, of_dst, None, None


def _arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.detach().numpy() for tensor in tensors]
