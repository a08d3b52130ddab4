"""The compiled loops of attention over the in-edges of a hop; see :mod:`graphsys.models.attention`.

Each writes the rows [start, stop). Array comments give shapes: n destinations, S sources, E edges, H heads of C
columns.
"""

import numpy as np
import numpy.typing as npt

from graphsys.models.parallel import Offsets, kernel

Floats = npt.NDArray[np.float32]


@kernel
def weigh(
    start: int,
    stop: int,
    indptr: Offsets,  # [n + 1]
    indices: Offsets,  # [E]
    values: Floats,  # [S, H, C]
    src_score: Floats,  # [S, H]
    dst_score: Floats,  # [n, H]
    slope: np.float32,
    share: Floats,  # out [E, H] weight of each edge
    own_share: Floats,  # out [n, H] weight of each destination's edge to itself
    out: Floats,  # out [n, H, C]
) -> None:
    """Weigh each destination's edges by the softmax of their scores, and sum its sources' rows."""
    heads, columns = values.shape[1], values.shape[2]
    for row in range(start, stop):
        begin, end = indptr[row], indptr[row + 1]
        for head in range(heads):
            own = src_score[row, head] + dst_score[row, head]
            own = max(own, own * slope)
            peak = own
            for edge in range(begin, end):
                score = src_score[indices[edge], head] + dst_score[row, head]
                score = max(score, score * slope)
                share[edge, head] = score
                peak = max(peak, score)
            own = np.exp(own - peak)
            total = own
            for edge in range(begin, end):
                share[edge, head] = np.exp(share[edge, head] - peak)
                total += share[edge, head]
            own_share[row, head] = own / total
            for edge in range(begin, end):
                share[edge, head] /= total
            for column in range(columns):
                out[row, head, column] = own_share[row, head] * values[row, head, column]
        for edge in range(begin, end):
            source = indices[edge]
            for head in range(heads):
                weight = share[edge, head]
                for column in range(columns):
                    out[row, head, column] += weight * values[source, head, column]


@kernel
def score_gradients(
    start: int,
    stop: int,
    indptr: Offsets,  # [n + 1]
    indices: Offsets,  # [E]
    values: Floats,  # [S, H, C]
    src_score: Floats,  # [S, H]
    dst_score: Floats,  # [n, H]
    slope: np.float32,
    share: Floats,  # [E, H]
    own_share: Floats,  # [n, H]
    of_out: Floats,  # [n, H, C]
    of_edge: Floats,  # out [E, H] gradient of each edge's score before the leaky ReLU
    of_own: Floats,  # out [n, H] the same of the edges to themselves
    of_dst: Floats,  # out [n, H] gradient of dst_score
) -> None:
    """Find the gradients of the scores from those of the sums."""
    for row in range(start, stop):
        begin, end = indptr[row], indptr[row + 1]
        for head in range(values.shape[1]):
            of_own[row, head] = _product(of_out[row, head], values[row, head])
            mean = own_share[row, head] * of_own[row, head]
            for edge in range(begin, end):
                of_edge[edge, head] = _product(of_out[row, head], values[indices[edge], head])
                mean += share[edge, head] * of_edge[edge, head]
            own = own_share[row, head] * (of_own[row, head] - mean)
            own *= _steepness(src_score[row, head] + dst_score[row, head], slope)
            of_own[row, head] = own
            of_dst[row, head] = own
            for edge in range(begin, end):
                part = share[edge, head] * (of_edge[edge, head] - mean)
                part *= _steepness(src_score[indices[edge], head] + dst_score[row, head], slope)
                of_edge[edge, head] = part
                of_dst[row, head] += part


@kernel
def _product(left: Floats, right: Floats) -> np.float32:
    total = np.float32(0)
    for column in range(left.shape[0]):
        total += left[column] * right[column]
    return total


@kernel
def _steepness(score: np.float32, slope: np.float32) -> np.float32:
    return slope if score < 0 else np.float32(1)


@kernel
def source_gradients(
    start: int,
    stop: int,
    starts: Offsets,  # [S + 1] offsets of each source's edges
    destination: Offsets,  # [E] by source
    order: npt.NDArray[np.int64],  # [E] place of each of them in the order by destination
    share: Floats,  # [E, H] by destination
    own_share: Floats,  # [n, H]
    of_out: Floats,  # [n, H, C]
    of_edge: Floats,  # [E, H] by destination
    of_own: Floats,  # [n, H]
    of_values: Floats,  # out [S, H, C]
    of_src: Floats,  # out [S, H] gradient of src_score
) -> None:
    """Sum the gradients of each source's row and score along its out-edges."""
    heads, columns = of_out.shape[1], of_out.shape[2]
    for row in range(start, stop):
        for head in range(heads):
            if row < own_share.shape[0]:
                of_src[row, head] = of_own[row, head]
                for column in range(columns):
                    of_values[row, head, column] = own_share[row, head] * of_out[row, head, column]
            else:
                of_src[row, head] = 0
                for column in range(columns):
                    of_values[row, head, column] = 0
        for place in range(starts[row], starts[row + 1]):
            edge, target = order[place], destination[place]
            for head in range(heads):
                of_src[row, head] += of_edge[edge, head]
                weight = share[edge, head]
                for column in range(columns):
                    of_values[row, head, column] += weight * of_out[target, head, column]
