"""Attention over the in-edges of a hop."""

import torch
from torch import Tensor
from torch.nn import functional

from graphsys.models.base import LayerHop


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
