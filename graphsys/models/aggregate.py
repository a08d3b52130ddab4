"""Sums over the in-edges of a hop, straight from its CSC arrays: what the built-in layers are made of.

No message is ever written: each destination's row is summed up in one pass over its sources' rows, in the order of the
edges, by one thread. So a sum is the same bit by bit for any number of threads.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from graphsys.models.base import LayerHop


def sum_neighbors(x: Tensor, hop: LayerHop, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return each destination's weighted sum of the rows of ``x`` along its in-edges, and the destinations' own rows.

    Args:
        x: [num_src, D] floating point; summed in 32 bits when it has less.
        hop: The edges.
        weight: [E] of the edges, of the type of the sums, without a gradient; None: ones.

    Returns:
        [num_dst, D] float32, or float64 if ``x`` is; [num_dst, D], the first rows of ``x``.
    """
    # bfloat16 counts only to 256.
    wide = x if x.dtype == torch.float64 else x.float()
    # One function for both makes the gradient of x in one buffer, where a slice of its own would fill another.
    apply: Callable[..., tuple[Tensor, Tensor]] = _SumNeighbors.apply
    return apply(wide, hop.indptr, hop.indices, weight)


def edge_counts(hop: LayerHop) -> Tensor:
    """Return the number of in-edges of each destination: [num_dst], of the type of ``indptr``."""
    return hop.indptr.diff()


def spread_to_edges(of_dst: Tensor, hop: LayerHop) -> Tensor:
    """Return for each edge the value [num_dst] of its destination: [E]."""
    return of_dst.repeat_interleave(edge_counts(hop), output_size=hop.num_edges)


def add_linear(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return ``out + x @ weight.T``, made in ``out`` [n, D_out] where its type allows."""
    if torch.is_autocast_enabled(x.device.type):
        return out + functional.linear(x, weight)
    return out.addmm_(x, weight.t())


class _SumNeighbors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, indptr: Tensor, indices: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        ctx.num_src = x.shape[0]
        ctx.save_for_backward(indptr, indices, weight)
        return segment_sum(x, indptr, indices, weight), x[: indptr.shape[0] - 1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        of_total, of_own = grads
        indptr, indices, weight = ctx.saved_tensors
        starts, destination, order = transposed(indptr, indices, num_src=ctx.num_src)
        grad = segment_sum(of_total, starts, destination, None if weight is None else weight[order])
        grad[: of_own.shape[0]] += of_own
        return grad, None, None, None


def segment_sum(x: Tensor, indptr: Tensor, indices: Tensor, weight: Tensor | None = None) -> Tensor:
    """Return [n, D]: row i sums the rows ``indices[indptr[i]:indptr[i + 1]]`` of ``x``, [E] weighted if asked for.

    ``indptr`` [n + 1] starts at 0 and has the type of ``indices`` [E]. Not differentiable through graphsys's own rule;
    :func:`sum_neighbors` is.
    """
    return functional.embedding_bag(indices, x, indptr, mode="sum", per_sample_weights=weight, include_last_offset=True)


def transposed(indptr: Tensor, indices: Tensor, *, num_src: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the edges by source.

    Returns:
        Offsets [num_src + 1] of each source's edges; the destination [E] of each, in the order of the hop; and its
        place [E] int64 among the hop's edges.
    """
    order = torch.sort(indices, stable=True).indices
    starts = functional.pad(torch.bincount(indices, minlength=num_src).cumsum(0), (1, 0))
    destination = torch.arange(indptr.shape[0] - 1, device=indices.device, dtype=indices.dtype)
    column = destination.repeat_interleave(indptr.diff(), output_size=indices.shape[0])
    return starts.to(indices.dtype), column[order], order
