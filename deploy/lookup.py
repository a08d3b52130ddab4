"""Exact nearest neighbours in an embedding table, by one pass over its vectors in bounded memory."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import InputError
from graphsys.core.types import Features, NodeIds
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.id_map import ExternalIds
from graphsys.storage.jit import njit

Metric = Literal["cosine", "dot", "l2"]
Doubles = npt.NDArray[np.float64]

_BLOCK_BYTES = 4 << 20  # vectors read at a time
_SCORE_BYTES = 32 << 20  # scores held at a time, which bounds the rows of a block
_MISSING = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The nearest neighbours of one queried id, in external ids."""

    id: int | str
    found: bool  # whether the table holds the id
    ids: list[int] | list[str]  # nearest first
    scores: list[float]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"id": self.id, "found": self.found, "ids": self.ids, "scores": self.scores}


def search(
    table: EmbeddingTable,
    queries: npt.ArrayLike,
    k: int,
    *,
    metric: Metric = "cosine",
    exclude: NodeIds | None = None,
) -> tuple[npt.NDArray[np.float32], NodeIds]:
    """Return the ``k`` nearest nodes of every query, nearest first; of equal ones the lower node id comes first.

    Scores are sums in float64, taken in the same order for every row, so that equal vectors score equally wherever they
    lie. A vector of length zero has cosine 0 with every other. Rows that are not finite are never found.

    Args:
        queries: [Q, dim] finite numbers.
        k: Neighbours wanted, at least 1.
        metric: ``cosine`` and ``dot``: larger is nearer; ``l2``: the Euclidean distance, smaller is nearer.
        exclude: [Q] int64 dense id to leave out of each query's answer, such as the query itself; -1 leaves none out.

    Returns:
        Scores [Q, k'] float32 and dense ids [Q, k'] int64, where k' = min(k, rows); where fewer rows remain, the score
        is NaN and the id -1.

    Raises:
        InputError: A query has the wrong length or is not finite, or ``k`` or ``metric`` is wrong.
        CorruptError: A chunk of the table is not as it was written.

    Cost:
        One sequential read of the table, Q x N x dim multiplications, about 40 MiB of memory.
    """
    wanted = _checked(table, queries, k, metric)
    num_queries, kept = wanted.shape[0], min(k, table.num_rows)
    left_out = np.full(num_queries, _MISSING, np.int64) if exclude is None else np.asarray(exclude, np.int64)
    best_score = np.full((num_queries, kept), -np.inf)
    best_node = np.full((num_queries, kept), _MISSING, np.int64)
    columns = np.ascontiguousarray(wanted.T)
    lengths = np.sqrt(np.einsum("qd,qd->q", wanted, wanted))
    rows = max(1, min(_BLOCK_BYTES // table.vectors.spec.row_nbytes, _SCORE_BYTES // (8 * max(num_queries, 1))))
    scores = np.empty((min(rows, table.num_rows), num_queries))
    for first, block in table.vectors.checked_blocks(rows):
        vectors = np.ascontiguousarray(block, np.float32)
        out = scores[: vectors.shape[0]]
        _score(vectors, columns, lengths, metric, out)
        for query in range(num_queries):
            if first <= left_out[query] < first + vectors.shape[0]:
                out[left_out[query] - first, query] = np.nan
            _merge(best_score[query], best_node[query], out[:, query], first)
    best_score[best_node == _MISSING] = np.nan
    nearest = np.sqrt(-best_score) if metric == "l2" else best_score
    return nearest.astype(np.float32), best_node


def neighbours(table: EmbeddingTable, ids: ExternalIds, k: int, *, metric: Metric = "cosine") -> list[Neighbours]:
    """Return the ``k`` nearest neighbours of each external id, itself left out, in the order of ``ids``.

    Args:
        ids: A sequence of int or str; an unknown one is answered with ``found`` False.

    Raises:
        InputError: ``k`` or ``metric`` is wrong.
    """
    node, found = table.to_node(ids)
    known = node[found]
    scores, nearest = search(table, table.take(known), k, metric=metric, exclude=known)
    answers = iter(zip(nearest, scores, strict=True))
    return [_answer(table, value, next(answers) if hit else None) for value, hit in zip(ids, found, strict=True)]


def _answer(table: EmbeddingTable, value: int | str, row: tuple[NodeIds, npt.NDArray[np.float32]] | None) -> Neighbours:
    if row is None:
        return Neighbours(id=value, found=False, ids=[], scores=[])
    node, score = row
    held = node != _MISSING
    scores = [float(number) for number in score[held]]
    return Neighbours(id=value, found=True, ids=table.ids.to_external(node[held]), scores=scores)


def _checked(table: EmbeddingTable, queries: npt.ArrayLike, k: int, metric: str) -> Doubles:
    if metric not in ("cosine", "dot", "l2"):
        raise InputError(f"metric '{metric}' is unknown; choose cosine, dot or l2")
    if k < 1:
        raise InputError(f"k is {k}; ask for at least 1 neighbour")
    wanted = np.asarray(queries, np.float64)
    if wanted.ndim != 2 or wanted.shape[1] != table.dim:
        raise InputError(f"the queries have shape {wanted.shape}; {table.path} needs [number of queries, {table.dim}]")
    bad = np.argwhere(~np.isfinite(wanted))
    if bad.size:
        raise InputError(f"query {bad[0][0]} holds {wanted[tuple(bad[0])]} at place {bad[0][1]}; give finite numbers")
    return wanted


def _score(vectors: Features, queries: Doubles, lengths: Doubles, metric: Metric, out: Doubles) -> None:
    """Fill ``out`` [n, Q] with scores of which larger is nearer; l2 gives the negative square of the distance.

    Args:
        vectors: [n, dim].
        queries: [dim, Q].
        lengths: [Q] Euclidean lengths of the queries.
    """
    square = np.empty(vectors.shape[0])
    _accumulate(vectors, queries, metric == "l2", out, square)
    out[~np.isfinite(square)] = np.nan
    if metric == "cosine":
        both = np.sqrt(square)[:, None] * lengths
        np.divide(out, both, out=out, where=(both > 0) & np.isfinite(both))
        out[both == 0] = 0


@njit
def _accumulate(vectors: Features, queries: Doubles, l2: bool, out: Doubles, square: Doubles) -> None:
    # Queries are the inner loop: each sum runs over the places in order, and the compiler still vectorises.
    out[:] = 0.0
    square[:] = 0.0
    for row in range(vectors.shape[0]):
        for place in range(vectors.shape[1]):
            value = np.float64(vectors[row, place])
            square[row] += value * value
            for query in range(queries.shape[1]):
                if l2:
                    difference = value - queries[place, query]
                    out[row, query] -= difference * difference
                else:
                    out[row, query] += value * queries[place, query]


def _merge(best_score: Doubles, best_node: NodeIds, score: Doubles, first: int) -> None:
    """Merge the scores of nodes ``first``, ``first + 1``, ... into a query's sorted best, in place."""
    # Nodes come in ascending order, so a later one must be strictly nearer than the last one kept.
    rows = np.flatnonzero(score > best_score[-1]) if best_score.size else np.empty(0, np.int64)
    if not rows.size:
        return
    kept = best_score.shape[0]
    if rows.size > kept:
        bound = np.partition(score[rows], rows.size - kept)[rows.size - kept]
        rows = rows[score[rows] >= bound]
    scores = np.concatenate([best_score, score[rows]])
    nodes = np.concatenate([best_node, first + rows])
    order = np.lexsort((nodes, -scores))
    # An empty place scores minus infinity and sorts behind every node.
    best_score[:] = scores[order[:kept]]
    best_node[:] = nodes[order[:kept]]
