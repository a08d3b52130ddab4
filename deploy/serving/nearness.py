"""What near means, as kernels: sums in float64 in the order of the places, as ``graphsys lookup`` takes them.

Only rows that may be an answer by a fast sum in float32 are summed up again, so the result is that of the slow way.
"""

import math

import numpy as np
import numpy.typing as npt

from graphsys.core.types import Features, NodeIds
from graphsys.deploy.lookup import Doubles, Metric
from graphsys.storage.jit import njit, njit_any_order

Lengths = npt.NDArray[np.float32]

CODES: dict[Metric, int] = {"cosine": 0, "dot": 1, "l2": 2}
MISSING = -1
LEAST_LENGTH, MOST_LENGTH = 1e-14, 1e15  # between them products of float32 rows neither overflow nor lose digits
_COSINE, _DOT, _L2 = CODES["cosine"], CODES["dot"], CODES["l2"]
_TILE = 32  # rows that stay in the first-level cache while the queries pass over them
_ROUNDING = 2.0**-24  # of float32


@njit
def row_lengths(vectors: Features, out: Lengths) -> None:
    """Fill ``out`` [n] with the Euclidean lengths of ``vectors`` [n, dim]; NaN for a row that is not finite."""
    for row in range(vectors.shape[0]):
        square = 0.0
        for place in range(vectors.shape[1]):
            value = np.float64(vectors[row, place])
            square += value * value
        out[row] = np.float32(math.sqrt(square)) if math.isfinite(square) else np.float32(np.nan)


@njit
def nearness(row: Features, query: Doubles, length: float, code: int) -> float:
    """Return how near ``row`` [dim] is to ``query`` [dim] of ``length``: larger is nearer; l2 as negative square."""
    total, square = 0.0, 0.0
    if code == _L2:
        for place in range(row.shape[0]):
            difference = np.float64(row[place]) - query[place]
            total -= difference * difference
        return total
    for place in range(row.shape[0]):
        value = np.float64(row[place])
        square += value * value
        total += value * query[place]
    if code == _DOT:
        return total
    both = math.sqrt(square) * length
    return total / both if both > 0 else 0.0


@njit
def keep(best_score: Doubles, best_node: NodeIds, score: float, node: int) -> None:
    """Put a node into a query's sorted best [k], in place; of equally near ones the lower id stands first."""
    place = best_score.shape[0] - 1
    if score < best_score[place] or (score == best_score[place] and node > best_node[place]):
        return
    while place > 0 and (
        score > best_score[place - 1] or (score == best_score[place - 1] and node < best_node[place - 1])
    ):
        best_score[place], best_node[place] = best_score[place - 1], best_node[place - 1]
        place -= 1
    best_score[place], best_node[place] = score, node


@njit
def rescore(
    rows: Features,
    node: NodeIds,
    query: Doubles,
    length: float,
    code: int,
    left_out: int,
    best_score: Doubles,
    best_node: NodeIds,
) -> None:
    """Bring candidates ``node`` [c], whose vectors are ``rows`` [c, dim], into one query's sorted best [k]."""
    for place in range(node.shape[0]):
        if node[place] != left_out:
            keep(best_score, best_node, nearness(rows[place], query, length, code), node[place])


@njit_any_order
def _dots(rows: Features, queries: Features, out: Features) -> None:
    """Fill ``out`` [n, Q] with the dot products of ``rows`` [n, dim] and ``queries`` [Q, dim], Q a multiple of 4."""
    for first in range(0, queries.shape[0], 4):
        a, b, c, d = queries[first], queries[first + 1], queries[first + 2], queries[first + 3]
        for row in range(rows.shape[0]):
            vector = rows[row]
            of_a = of_b = of_c = of_d = np.float32(0)
            for place in range(vector.shape[0]):
                value = vector[place]
                of_a += value * a[place]
                of_b += value * b[place]
                of_c += value * c[place]
                of_d += value * d[place]
            out[row, first], out[row, first + 1], out[row, first + 2], out[row, first + 3] = of_a, of_b, of_c, of_d


@njit
def _floor(best: float, code: int, row: float, query: float, dim: int) -> float:
    """Return the least float32 dot product with which a row of length ``row`` may be nearer than ``best``."""
    slack = (dim + 16) * _ROUNDING
    if code == _COSINE:
        return (best - 2 * slack) * row
    if code == _DOT:
        return best - 2 * slack * row * query
    both = row + query
    return (best + row * row + query * query) / 2 - 2 * slack * both * both


@njit
def scan(
    rows: Features,
    lengths: Lengths,
    first: int,
    queries: Doubles,
    narrow: Features,
    query_lengths: Doubles,
    code: int,
    left_out: NodeIds,
    best_score: Doubles,
    best_node: NodeIds,
) -> None:
    """Bring nodes ``first``, ``first + 1``, ... into the sorted best [Q, k] of every query, in place.

    Args:
        rows: [n, dim] their vectors.
        lengths: [n] of :func:`row_lengths`.
        queries: [Q, dim].
        narrow: [Q', dim] the queries in float32, for cosine of length 1; rows of zeros fill it up to a multiple of 4.
        query_lengths: [Q] of ``queries``.
        left_out: [Q] node that is no answer; -1 for none.
    """
    num_queries, dim = queries.shape
    last = best_score.shape[1] - 1
    dots = np.empty((_TILE, narrow.shape[0]), np.float32)
    for start in range(0, rows.shape[0], _TILE):
        stop = min(start + _TILE, rows.shape[0])
        _dots(rows[start:stop], narrow, dots)
        for row in range(start, stop):
            length = np.float64(lengths[row])
            if math.isnan(length):
                continue
            plain = LEAST_LENGTH < length < MOST_LENGTH
            for query in range(num_queries):
                of_query = query_lengths[query]
                likely = True
                if plain and LEAST_LENGTH < of_query < MOST_LENGTH:
                    least = _floor(best_score[query, last], code, length, of_query, dim)
                    likely = dots[row - start, query] >= least
                if likely and first + row != left_out[query]:
                    score = nearness(rows[row], queries[query], of_query, code)
                    keep(best_score[query], best_node[query], score, first + row)
