"""Exact nearest neighbours among vectors in memory or memory-mapped: what ``graphsys lookup`` answers, much faster."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import GraphsysError
from graphsys.core.progress import SILENT, Progress, task
from graphsys.core.types import Array, NodeIds
from graphsys.deploy.lookup import Doubles, Metric
from graphsys.deploy.serving.nearness import CODES, MISSING, Lengths, row_lengths, scan

Scores = npt.NDArray[np.float32]

_BLOCK_BYTES = 1 << 20  # float16 vectors that are widened at a time
_QUERIES = 32  # that pass over the vectors together; their rows stay in the first-level caches


class StoppedError(GraphsysError):
    """A search was told to stop: nobody waits for its answer any more."""


def never() -> bool:
    """Return that a search goes on to its end."""
    return False


class ExactSearch:
    """Scans all vectors for every question, on ``threads`` threads.

    Args:
        vectors: [N, dim] float32 or float16; may be a memory map.
        threads: That one search may take.
    """

    def __init__(self, vectors: Array, *, threads: int, progress: Progress = SILENT) -> None:
        self.vectors = vectors
        self.threads = threads
        self._block = max(1, _BLOCK_BYTES // (4 * vectors.shape[1]))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="graphsys-search")
        self.lengths = self._measure(progress)

    def _measure(self, progress: Progress) -> Lengths:
        """Return the length [N] of every vector; NaN where it is not finite."""
        lengths = np.empty(self.vectors.shape[0], np.float32)
        with task(progress, "measure vectors", lengths.shape[0], "rows") as work:
            for start in range(0, lengths.shape[0], self._block):
                rows = self._rows(start, min(start + self._block, lengths.shape[0]))
                row_lengths(rows, lengths[start : start + rows.shape[0]])
                work.advance(rows.shape[0])
        return lengths

    def _rows(self, start: int, stop: int) -> Array:
        # float32 rows are a view: nothing is copied.
        return np.ascontiguousarray(self.vectors[start:stop], np.float32)

    def search(
        self,
        queries: Doubles,
        k: int,
        metric: Metric,
        left_out: NodeIds | None = None,
        *,
        stop: Callable[[], bool] = never,
    ) -> tuple[Doubles, NodeIds]:
        """Return nearness [Q, k], the largest first, and nodes [Q, k]; minus infinity and -1 where none is left.

        Args:
            queries: [Q, dim] finite.
            left_out: [Q] node that is no answer; -1 for none.
            stop: Asked between blocks of a MiB, from several threads; once it says so, the search ends.

        Raises:
            StoppedError: ``stop`` said so.

        Cost:
            Q x N x dim multiplications; the vectors are read once per 32 queries. Memory: 16 k Q bytes per thread.
        """
        num_queries = queries.shape[0]
        score = np.full((num_queries, k), -np.inf)
        node = np.full((num_queries, k), MISSING, np.int64)
        none = np.full(num_queries, MISSING, np.int64) if left_out is None else left_out
        for start in range(0, num_queries, _QUERIES):
            part = slice(start, start + _QUERIES)
            score[part], node[part] = self._search_few(queries[part], k, metric, none[part], stop)
        return score, node

    def _search_few(
        self, queries: Doubles, k: int, metric: Metric, left_out: NodeIds, stop: Callable[[], bool]
    ) -> tuple[Doubles, NodeIds]:
        lengths = np.sqrt(np.einsum("qd,qd->q", queries, queries))
        narrow = narrowed(queries, lengths, metric)
        cuts = np.linspace(0, self.vectors.shape[0], self.threads + 1).astype(np.int64).tolist()

        def part(start: int, end: int) -> tuple[Doubles, NodeIds]:
            score = np.full((queries.shape[0], k), -np.inf)
            node = np.full((queries.shape[0], k), MISSING, np.int64)
            for first in range(start, end, self._block):
                if stop():
                    raise StoppedError("the search was given up")
                rows = self._rows(first, min(first + self._block, end))
                scan(
                    rows, self.lengths[first : first + rows.shape[0]], first, queries, narrow, lengths, CODES[metric],
                    left_out, score, node,
                )  # fmt: skip
            return score, node

        found = list(self._pool.map(part, cuts[:-1], cuts[1:]))
        return found[0] if len(found) == 1 else _merged(found, k)

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown()


def narrowed(queries: Doubles, lengths: Doubles, metric: Metric) -> npt.NDArray[np.float32]:
    """Return queries [Q, dim] as :func:`~graphsys.deploy.serving.nearness.scan` takes them in float32."""
    narrow = np.zeros((-(-queries.shape[0] // 4) * 4, queries.shape[1]), np.float32)
    # A query that is too long or too short for float32 is not compared by it.
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        narrow[: queries.shape[0]] = queries / lengths[:, None] if metric == "cosine" else queries
    return narrow


def _merged(found: list[tuple[Doubles, NodeIds]], k: int) -> tuple[Doubles, NodeIds]:
    score, node = (np.concatenate(part, axis=1) for part in zip(*found, strict=True))
    order = np.lexsort((node, -score), axis=1)[:, :k]
    return np.take_along_axis(score, order, axis=1), np.take_along_axis(node, order, axis=1)
