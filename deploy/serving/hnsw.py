"""A graph of neighbours over a table's distinct vectors (usearch), searched with the table's own vectors as judge.

The graph only proposes: what it finds is scored again from the vectors themselves, in the way of an exact search.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from usearch.index import Index

from graphsys.core.progress import SILENT, Progress, task
from graphsys.core.types import Array, Features, NodeIds
from graphsys.deploy.lookup import Doubles, Metric
from graphsys.deploy.serving.distinct import Copies
from graphsys.deploy.serving.nearness import CODES, MISSING, rescore
from graphsys.deploy.serving.node_parts import node_parts

CONNECTIVITY = 16  # links of a vector, twice as many on the lowest level
EXPANSION_ADD = 64  # candidates while a vector is linked
SPARE = 16  # candidates judged beyond twice the wanted neighbours
_BLOCK = 4096  # vectors added at a time
_WANTED = 10  # neighbours that an expansion is chosen for


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Where vectors lie in the graph, so that the nearest there are the nearest by a table's metric.

    For ``cosine`` vectors get length 1. For ``dot`` they are divided by the longest length, and a further place brings
    each to length 1, so that the nearest directions are the largest products. For ``l2`` they are divided by the
    longest length, so that numbers fit 8 bits.

    Source:
        The further place: Bachrach et al. 2014, "Speeding up the Xbox recommender system".
    """

    metric: Metric
    longest: float  # of the vectors

    @property
    def kind(self) -> str:
        """The metric as usearch calls it."""
        return "l2sq" if self.metric == "l2" else "ip"

    def width(self, dim: int) -> int:
        """Places of a vector in the graph."""
        return dim + 1 if self.metric == "dot" else dim

    def place(self, vectors: Features) -> Features:
        """Return rows [n, width] of the graph for the table's [n, dim]."""
        wide = vectors.astype(np.float64)
        if self.metric == "cosine":
            return _narrow(wide / np.linalg.norm(wide, axis=1, keepdims=True))
        wide /= self.longest
        if self.metric == "l2":
            return _narrow(wide)
        rest = np.sqrt(np.maximum(1 - np.einsum("nd,nd->n", wide, wide), 0))
        return _narrow(np.concatenate([wide, rest[:, None]], axis=1))

    def ask(self, queries: Doubles) -> Features:
        """Return queries [Q, width] of the graph."""
        if self.metric == "l2":
            return _narrow(queries / self.longest)
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        unit = queries / np.where(lengths > 0, lengths, 1)
        return _narrow(np.pad(unit, ((0, 0), (0, 1))) if self.metric == "dot" else unit)


def _narrow(wide: Doubles) -> Features:
    with np.errstate(over="ignore", under="ignore"):  # a query far outside stays far outside
        return np.clip(wide, -1e18, 1e18).astype(np.float32)


class NeighbourGraph:
    """A graph in memory or memory-mapped, and the vectors that judge what it finds.

    Args:
        index: Of the distinct vectors, by node.
        vectors: [N, dim] the table's.
        aside: [Z] nodes that the graph leaves out and that every answer must weigh: those without direction.
        expansion: Candidates of a search for ten neighbours.
        threads: That one search may take.
    """

    def __init__(
        self,
        index: Index,
        space: Space,
        vectors: Array,
        copies: Copies,
        *,
        aside: NodeIds,
        expansion: int,
        threads: int,
    ) -> None:
        self._index = index
        self._space = space
        self._vectors = vectors
        self._copies = copies
        self._aside = aside
        self._threads = threads
        self.expansion = expansion

    @property
    def num_vectors(self) -> int:
        """Distinct vectors in the graph."""
        return len(self._index)

    def set_expansion(self, expansion: int) -> None:
        """Let a search for ten neighbours weigh ``expansion`` candidates; not while others search."""
        self.expansion = expansion
        setattr(self._index, "expansion_search", expansion)  # noqa: B010 - usearch's types miss the setter

    def candidates(self, k: int) -> int:
        """Return how many candidates a search for ``k`` neighbours judges; more neighbours need more in proportion."""
        return min(max(2 * k + SPARE, self.expansion * k // _WANTED if k > _WANTED else 0), self.num_vectors)

    def search(self, queries: Doubles, k: int, left_out: NodeIds) -> tuple[Doubles, NodeIds]:
        """Return nearness and nodes as :meth:`ExactSearch.search`, by the graph's own metric."""
        count = self.candidates(k)
        threads = min(self._threads, queries.shape[0])
        asked = self._space.ask(queries)
        found: Any = self._index.search(asked[0] if len(asked) == 1 else asked, count, threads=threads)
        keys = np.atleast_2d(found.keys).astype(np.int64)
        held = [keys.shape[1]] if len(asked) == 1 else found.counts
        return self._judge(keys, held, queries, k, left_out)

    def _judge(
        self, keys: NodeIds, held: npt.ArrayLike, queries: Doubles, k: int, left_out: NodeIds
    ) -> tuple[Doubles, NodeIds]:
        score = np.full((queries.shape[0], k), -np.inf)
        node = np.full((queries.shape[0], k), MISSING, np.int64)
        lengths = np.sqrt(np.einsum("qd,qd->q", queries, queries))
        code, aside = CODES[self._space.metric], self._aside[: k + 1]
        for row, count in enumerate(np.asarray(held)):
            found = self._copies.with_copies(keys[row, :count], k + 1)
            found = np.concatenate([found, aside]) if aside.size else found
            rows = self._vectors[found].astype(np.float32, copy=False)
            rescore(rows, found, queries[row], lengths[row], code, left_out[row], score[row], node[row])
        return score, node

    def save(self, path: Path) -> None:
        """Write the graph to a file."""
        self._index.save(str(path))

    def close(self) -> None:
        """Let go of the file."""
        release: Callable[[], None] = self._index.reset
        release()


def new_index(space: Space, dim: int, storage: str) -> Index:
    """Return an index without vectors."""
    return Index(
        ndim=space.width(dim),
        metric=space.kind,
        dtype=storage,
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        enable_key_lookups=False,
    )


def fill(
    index: Index, space: Space, vectors: Array, node: NodeIds, *, threads: int, progress: Progress = SILENT
) -> None:
    """Add the vectors of ``node`` [U]."""
    with task(progress, "link neighbours", node.shape[0], "vectors") as work:
        for number, part in enumerate(node_parts(node, _BLOCK)):
            # Sequential where ids ascend: a table on disk is read once. The first vectors are linked by one thread:
            # while there are few, threads that link at once may leave some out of each other's reach for good.
            placed = space.place(vectors[part].astype(np.float32, copy=False))
            index.add(part, placed, threads=threads if number else 1)
            work.advance(part.shape[0])
