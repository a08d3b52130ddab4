"""Sums over the in-edges of a hop: what every built-in layer is made of."""

from torch import Tensor

from graphsys.models.base import LayerHop


def sum_neighbors(
    x: Tensor, hop: LayerHop, *, src_scale: Tensor | None = None, dst_scale: Tensor | None = None
) -> Tensor:
    """Return the sum of ``src_scale[j] * x[j]`` over each destination i's in-edges j -> i, times ``dst_scale[i]``.

    Args:
        x: [num_src, D] floating point.
        hop: The edges.
        src_scale: [num_src] float32; None: ones. Gets no gradient.
        dst_scale: [num_dst] float32; None: ones. Gets no gradient.

    Returns:
        [num_dst, D] float32.
    """
    values = x.float() if src_scale is None else x.float() * src_scale[:, None]
    src, dst = hop.edge_index
    total = values.new_zeros(hop.num_dst, x.shape[1]).index_add(0, dst, values[src])
    return total if dst_scale is None else total * dst_scale[:, None]


def edge_counts(hop: LayerHop) -> Tensor:
    """Return the number of in-edges of each destination: [num_dst], of the type of ``indptr``."""
    return hop.indptr.diff()
