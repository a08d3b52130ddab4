"""Nearest neighbours in a table: by a graph that is built once and kept beside it, or exactly."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import DiskError, InputError
from graphsys.core.machine import cores
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import NodeIds
from graphsys.deploy.lookup import Doubles, Metric
from graphsys.deploy.serving.best_graph import is_scanned
from graphsys.deploy.serving.exact import ExactSearch, Scores, never
from graphsys.deploy.serving.hnsw import NeighbourGraph
from graphsys.deploy.serving.index_folder import open_or_build
from graphsys.deploy.serving.nearness import CODES, MISSING
from graphsys.deploy.serving.settings import Storage
from graphsys.deploy.serving.wanted_index import Wanted
from graphsys.storage.embeddings import EmbeddingTable

_GRAPH_SHARE = 16  # of the vectors, as a divisor: more candidates than that are better scanned
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """How a table is searched."""

    metric: Metric = "cosine"  # the graph's; the others are answered exactly
    storage: Storage = "auto"  # of vectors in the graph: f32, f16, bf16, i8; auto: bf16, or f32 where that does not do
    threads: int = 0  # of one search or of a build; 0: one per core
    folder: Path | None = None  # where indices lie, as VERSION.index; None: beside the table, as NAME.index

    @property
    def num_threads(self) -> int:
        """Threads to take."""
        return self.threads or cores()


class SearchIndex:
    """Answers searches in one table; many threads may ask at once.

    Args:
        exact: Over the table's vectors.
        graph: For ``metric``; None: all searches are exact.
        content: What is told of the index, as plain JSON values.
    """

    def __init__(
        self, exact: ExactSearch, graph: NeighbourGraph | None, *, metric: Metric, content: dict[str, Any]
    ) -> None:
        self._exact = exact
        self._graph = graph
        self.metric = metric
        self.content = content

    def search(
        self,
        queries: npt.ArrayLike,
        k: int,
        metric: Metric | None = None,
        exclude: NodeIds | None = None,
        *,
        exact: bool = False,
        stop: Callable[[], bool] = never,
    ) -> tuple[Scores, NodeIds]:
        """Return the ``k`` nearest nodes of every query, nearest first, as :func:`graphsys.deploy.lookup.search` does.

        Args:
            queries: [Q, dim] finite numbers.
            k: Neighbours wanted, at least 1.
            metric: None takes the index's own.
            exclude: [Q] dense id to leave out of each answer; -1 leaves none out.
            exact: Scan all vectors, whatever index there is.
            stop: Asked now and then while vectors are scanned; once it says so, the search ends.

        Returns:
            Scores [Q, k'] float32 and dense ids [Q, k'] int64, where k' = min(k, rows); where fewer rows remain, the
            score is NaN and the id -1.

        Raises:
            InputError: A query has the wrong length or is not finite, or ``k`` or ``metric`` is wrong.
            StoppedError: ``stop`` said so.
        """
        chosen = metric or self.metric
        wanted = self._checked(queries, k, chosen)
        kept = min(k, self._exact.vectors.shape[0])
        left_out = np.full(wanted.shape[0], MISSING, np.int64) if exclude is None else np.asarray(exclude, np.int64)
        score, node = self._found(wanted, kept, chosen, left_out, exact=exact, stop=stop)
        score[node == MISSING] = np.nan
        return (np.sqrt(-score) if chosen == "l2" else score).astype(np.float32), node

    def _found(
        self, queries: Doubles, k: int, metric: Metric, left_out: NodeIds, *, exact: bool, stop: Callable[[], bool]
    ) -> tuple[Doubles, NodeIds]:
        graph = self._graph
        if graph is None or exact or metric != self.metric or not queries.shape[0]:
            return self._exact.search(queries, k, metric, left_out, stop=stop)
        if graph.candidates(k) > graph.num_vectors // _GRAPH_SHARE:
            return self._exact.search(queries, k, metric, left_out, stop=stop)
        score, node = graph.search(queries, k, left_out)
        if metric == "cosine":
            flat = ~queries.any(axis=1)  # as near to one vector as to another: the lowest ids are the answer
            if flat.any():
                score[flat], node[flat] = self._exact.search(queries[flat], k, metric, left_out[flat], stop=stop)
        return score, node

    def _checked(self, queries: npt.ArrayLike, k: int, metric: str) -> Doubles:
        if metric not in CODES:
            raise InputError(f"metric '{metric}' is unknown; choose cosine, dot or l2")
        if k < 1:
            raise InputError(f"k is {k}; ask for at least 1 neighbour")
        wanted = np.ascontiguousarray(queries, np.float64)
        dim = self._exact.vectors.shape[1]
        if wanted.ndim != 2 or wanted.shape[1] != dim:
            raise InputError(f"the queries have shape {wanted.shape}; the table needs [number of queries, {dim}]")
        bad = np.argwhere(~(np.abs(wanted) <= _MOST))
        if bad.size:
            raise InputError(
                f"query {bad[0][0]} holds {wanted[tuple(bad[0])]} at place {bad[0][1]}; give finite float32 numbers"
            )
        return wanted

    def close(self) -> None:
        """Let go of threads and files; no search may be under way."""
        self._exact.close()
        if self._graph is not None:
            self._graph.close()


def open_index(table: EmbeddingTable, settings: IndexSettings, progress: Progress = SILENT) -> SearchIndex:
    """Open the index of a table, all of whose vectors are known to be unchanged; build it where there is none.

    Raises:
        DiskError: The index cannot be written; ``index_folder`` names another place.
    """
    threads = settings.num_threads
    exact = ExactSearch(table.vectors.memmap(), threads=threads, progress=progress)
    told = {"metric": settings.metric, "storage": settings.storage}
    if is_scanned(table.num_rows, table.dim):
        content = {"kind": "exact", "reason": f"{table.num_rows} rows are scanned at once", "recall": {}}
        return _warm(SearchIndex(exact, None, metric=settings.metric, content={**told, **content}), table.dim)
    wanted = Wanted(
        table=table,
        folder=index_folder(table, settings),
        metric=settings.metric,
        storage=settings.storage,
        threads=threads,
    )
    try:
        opened = open_or_build(wanted, exact, progress)
    except DiskError as error:
        raise DiskError(
            f"{error}. --set index_folder=FOLDER keeps indices in another place than beside the table"
        ) from error
    return _warm(
        SearchIndex(exact, opened.graph, metric=settings.metric, content={**told, **opened.content}), table.dim
    )


def _warm(index: SearchIndex, dim: int) -> SearchIndex:
    # The first search compiles what scans vectors.
    for exact in (False, True):
        index.search(np.ones((1, dim)), 1, exact=exact)
    return index


def index_folder(table: EmbeddingTable, settings: IndexSettings) -> Path:
    """Return where the index of ``table`` lies."""
    kind = f"{settings.metric}-{settings.storage}"
    if settings.folder is None:
        return table.path.parent / f"{table.path.name}.index" / kind
    return settings.folder / f"{table.version}.index" / kind  # tables of many folders may share a name
