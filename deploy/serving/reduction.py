"""From vectors of any width to two numbers: principal axes in bounded memory, or UMAP where it is installed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from graphsys.core.errors import ConfigError
from graphsys.core.types import Features

Doubles = npt.NDArray[np.float64]
Blocks = Callable[[], Iterator[Features]]  # the same rows [*, dim], all finite, from the front at each call

UMAP_COLUMNS = 64  # UMAP works on so many principal axes, so that what it holds does not grow with dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Directions along which vectors differ most, most first."""

    mean: Doubles  # [dim]
    columns: Doubles  # [dim, axes], of length 1; fewer than asked for where dim is smaller
    explained: tuple[float, ...]  # share of the variance along each axis

    def place(self, vectors: npt.NDArray[Any]) -> Doubles:
        """Return the coordinates [Q, axes] of vectors [Q, dim]."""
        return (vectors.astype(np.float64) - self.mean) @ self.columns


def principal_axes(blocks: Blocks, dim: int, count: int) -> Axes:
    """Return the first ``count`` principal axes of the rows that ``blocks`` yields.

    The sign of an axis is such that its largest entry is positive, so that the same rows give the same picture.

    Cost:
        One pass, rows x dim^2 multiplications; 24 dim^2 bytes beside a block.
    """
    num_rows, shift = 0, np.zeros(dim)
    total, products = np.zeros(dim), np.zeros((dim, dim))
    for block in blocks():
        if num_rows == 0:
            shift = block.mean(axis=0, dtype=np.float64)  # near the mean: what is squared below stays small
        rows = block.astype(np.float64) - shift
        total += rows.sum(axis=0)
        products += rows.T @ rows
        num_rows += rows.shape[0]
    offset = total / max(num_rows, 1)
    covariance = products / max(num_rows, 1) - np.outer(offset, offset)
    first = max(dim - count, 0)
    values, columns = eigh(covariance, subset_by_index=(first, dim - 1))
    columns = np.ascontiguousarray(columns[:, ::-1])
    columns *= np.where(columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])] < 0, -1, 1)
    variance = float(np.trace(covariance))
    shares = (max(float(value), 0.0) / variance if variance > 0 else 0.0 for value in values[::-1])
    return Axes(mean=shift + offset, columns=columns, explained=tuple(shares))


def plane(coordinates: npt.NDArray[Any]) -> Features:
    """Return [n, 2] float32 from coordinates [n, 1 or 2]; a missing second one is zero."""
    missing = 2 - coordinates.shape[1]
    return np.pad(coordinates, ((0, 0), (0, missing))).astype(np.float32)


def umap_layout(blocks: Blocks, dim: int, seed: int) -> Features:
    """Return UMAP's coordinates [n, 2] float32 of the rows that ``blocks`` yields; the same for the same seed.

    Raises:
        ConfigError: umap-learn is not installed.

    Source:
        McInnes, Healy, Melville 2018 (arXiv:1802.03426), as umap-learn implements it.
    """
    umap = _import_umap()
    axes = principal_axes(blocks, dim, UMAP_COLUMNS) if dim > UMAP_COLUMNS else None
    rows = np.concatenate([block if axes is None else axes.place(block).astype(np.float32) for block in blocks()])
    # A seed makes umap-learn work on one thread, and it warns unless that is asked for.
    neighbours = min(15, rows.shape[0] - 1)
    if neighbours < 2:
        return plane(rows[:, :2])
    layout = umap.UMAP(n_components=2, n_neighbors=neighbours, init=_start(rows), random_state=seed, n_jobs=1)
    return np.asarray(layout.fit_transform(rows), np.float32)


def _start(rows: Features) -> str:
    """Return how the layout starts: umap-learn's spectral start fails on a handful of rows."""
    return "spectral" if rows.shape[0] > 50 else "random"


def _import_umap() -> Any:
    try:
        import umap
    except ImportError as error:
        raise ConfigError(
            "method 'umap' needs the package umap-learn, which is not installed; run "
            "`pip install 'graphsys[umap]'`, or choose --method pca"
        ) from error
    return umap
