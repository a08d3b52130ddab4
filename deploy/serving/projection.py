"""The map of an embedding table: a place in the plane for each of up to about 100,000 of its vectors.

It is computed when a table is loaded, or ahead by ``graphsys project``, which saves it beside the table
(``map_folder.py``); the table itself is sealed and stays as it is.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import ConfigError
from graphsys.core.progress import SILENT, Progress, Task, task
from graphsys.core.seeding import derive_key
from graphsys.core.types import Features, NodeIds
from graphsys.deploy.serving.node_parts import node_parts
from graphsys.deploy.serving.reduction import (
    UMAP_COLUMNS,
    Axes,
    Blocks,
    axes_passes,
    plane,
    principal_axes,
    umap_layout,
)
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.manifest import fingerprint

Method = Literal["pca", "umap"]

DEFAULT_POINTS = 100_000
MOST_POINTS = 1_000_000
_BLOCK_BYTES = 8 << 20  # vectors read at a time
_LARGEST = 1e30  # beyond it a place might not fit into float32
_SAMPLE_KEY = 0x3A9


@dataclass(frozen=True, slots=True, kw_only=True)
class MapSettings:
    """What decides a map of a given table."""

    method: Method = "pca"
    points: int = DEFAULT_POINTS  # most of them
    seed: int = 0  # of the sample of rows, and of UMAP

    def __post_init__(self) -> None:
        if self.method not in ("pca", "umap"):
            raise ConfigError(f"method '{self.method}' is unknown; choose pca or umap")
        if not 1 <= self.points <= MOST_POINTS:
            raise ConfigError(f"a map of {self.points} points is not possible; ask for 1 to {MOST_POINTS:,}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"method": self.method, "points": self.points, "seed": self.seed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Projection:
    """Places of a table's vectors in the plane."""

    settings: MapSettings
    node: NodeIds  # [n] int64 dense ids, ascending
    xy: Features  # [n, 2] float32, by point
    axes: Axes | None  # places any other vector too; None: the method gives only the points themselves
    left_out: int  # sampled rows that have no place: a value is not finite, or beyond 1e30
    num_rows: int  # of the table
    saved: bool  # read from disk, not computed
    fingerprint: str  # differs wherever a place does
    seconds: float  # that the computing took

    @property
    def num_points(self) -> int:
        """How many rows have a place."""
        return int(self.node.shape[0])

    def place(self, node: NodeIds, vectors: npt.NDArray[Any]) -> Features:
        """Return the places [Q, 2] float32 of dense ids [Q] with their vectors [Q, dim]; NaN where there is none."""
        if self.axes is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                return plane(self.axes.place(vectors))
        places = np.full((node.shape[0], 2), np.nan, np.float32)
        if self.num_points:
            at = np.minimum(np.searchsorted(self.node, node), self.num_points - 1)
            known = self.node[at] == node
            places[known] = self.xy[at[known]]
        return places


def compute_projection(table: EmbeddingTable, settings: MapSettings, progress: Progress = SILENT) -> Projection:
    """Return a new map; the same for the same table and settings.

    Raises:
        ConfigError: The method is not installed.
        CorruptError: A chunk of the table is not as it was written.

    Cost:
        Two passes over the sampled rows, and those of principal_axes, with its memory and some blocks of 8 MiB. umap:
        about a minute of one core per 30,000 points on top.
    """
    started = time.perf_counter()
    sample = sample_rows(table.num_rows, settings.points, settings.seed)
    passes = 2 + (axes_passes(table.dim) if settings.method == "pca" or table.dim > UMAP_COLUMNS else 0)
    with task(progress, f"map {table.path.name}", passes * sample.shape[0], "rows") as work:
        node = _usable_rows(table, sample, work)
        blocks = _blocks_of(table, node, work)
        axes: Axes | None = None
        if node.shape[0] == 0:
            xy = np.empty((0, 2), np.float32)
        elif settings.method == "umap":
            work.note("UMAP")
            xy = umap_layout(blocks, table.dim, settings.seed)
        else:
            axes = principal_axes(blocks, table.dim, 2)
            xy = plane(np.concatenate([axes.place(block) for block in blocks()]))
    return Projection(
        settings=settings,
        node=node,
        xy=xy,
        axes=axes,
        left_out=sample.shape[0] - node.shape[0],
        num_rows=table.num_rows,
        saved=False,
        fingerprint=fingerprint({"table": table.fingerprint, **settings.as_dict()}),
        seconds=time.perf_counter() - started,
    )


def sample_rows(num_rows: int, points: int, seed: int) -> NodeIds:
    """Return up to ``points`` ascending rows of [0, num_rows): all, or one drawn from each of as many equal parts."""
    if num_rows <= points:
        return np.arange(num_rows, dtype=np.int64)
    bounds = np.arange(points + 1, dtype=np.int64) * num_rows // points
    generator = np.random.Generator(np.random.Philox(key=derive_key(seed, num_rows, _SAMPLE_KEY)))
    return bounds[:-1] + (generator.random(points) * np.diff(bounds)).astype(np.int64)


def _rows_per_block(table: EmbeddingTable) -> int:
    return max(1, _BLOCK_BYTES // table.vectors.spec.row_nbytes)


def _usable_rows(table: EmbeddingTable, node: NodeIds, work: Task) -> NodeIds:
    kept = [np.empty(0, np.int64)]
    for part in node_parts(node, _rows_per_block(table)):
        usable = np.abs(table.take(part).astype(np.float32)) <= _LARGEST  # of NaN this is not true either
        kept.append(part[usable.all(axis=1)])
        work.advance(part.shape[0])
    return np.concatenate(kept)


def _blocks_of(table: EmbeddingTable, node: NodeIds, work: Task) -> Blocks:
    def blocks() -> Iterator[Features]:
        for part in node_parts(node, _rows_per_block(table)):
            yield table.take(part).astype(np.float32)
            work.advance(part.shape[0])

    return blocks
