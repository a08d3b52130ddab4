"""From vectors of any width to two numbers: principal axes in bounded memory, or UMAP where it is installed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, qr

from graphsys.core.errors import ConfigError
from graphsys.core.seeding import derive_key
from graphsys.core.types import Features

Doubles = npt.NDArray[np.float64]
Blocks = Callable[[], Iterator[Features]]  # the same rows [*, dim], all finite, from the front at each call

EXACT_COLUMNS = 1024  # of wider vectors, the products of all pairs of columns would not fit
_TRIED = 16  # directions beside those asked for, and passes, of the iteration for wide vectors
_PASSES = 6
_KEY = 0xA7E5
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
    """Return the first ``count`` principal axes of the rows that ``blocks`` yields; nearly so for wide vectors.

    The sign of an axis is such that its largest entry is positive, so that the same rows give the same picture.

    Cost:
        Up to 1024 columns one pass, rows x dim^2 multiplications and 24 dim^2 bytes beside a block; for wider vectors
        eight passes, 300 multiplications per value, and 500 bytes per column.
    """
    count = min(count, dim)
    return _exact_axes(blocks, dim, count) if dim <= EXACT_COLUMNS else _iterated_axes(blocks, dim, count)


def axes_passes(dim: int) -> int:
    """Return how often :func:`principal_axes` goes through all rows."""
    return 1 if dim <= EXACT_COLUMNS else _PASSES + 2


def _exact_axes(blocks: Blocks, dim: int, count: int) -> Axes:
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
    values, columns = eigh(covariance, subset_by_index=(dim - count, dim - 1))
    return _axes(shift + offset, columns[:, ::-1], values[::-1], float(np.trace(covariance)))


def _iterated_axes(blocks: Blocks, dim: int, count: int) -> Axes:
    """Return the axes by subspace iteration on the covariance, which is never put together.

    Source:
        Halko, Martinsson, Tropp 2011, algorithm 4.4 (SIAM Review 53).
    """
    mean, variance, num_rows = _mean_and_variance(blocks, dim)
    generator = np.random.Generator(np.random.Philox(key=derive_key(dim, _KEY)))
    basis: Doubles = generator.standard_normal((dim, count + _TRIED))
    for _ in range(_PASSES):
        basis, _ = qr(basis, mode="economic")
        product = np.zeros_like(basis)
        for block in blocks():
            rows = block.astype(np.float64) - mean
            product += rows.T @ (rows @ basis)
        small = basis.T @ product / max(num_rows, 1)
        small, basis, found = (small + small.T) / 2, product, basis
    values, turned = eigh(small)
    columns = found @ turned[:, ::-1]
    return _axes(mean, columns[:, :count], values[::-1][:count], variance)


def _mean_and_variance(blocks: Blocks, dim: int) -> tuple[Doubles, float, int]:
    total, num_rows, variance = np.zeros(dim), 0, 0.0
    for block in blocks():
        total += block.sum(axis=0, dtype=np.float64)
        num_rows += block.shape[0]
    mean = total / max(num_rows, 1)
    for block in blocks():
        variance += float(np.square(block.astype(np.float64) - mean).sum())
    return mean, variance / max(num_rows, 1), num_rows


def _axes(mean: Doubles, columns: Doubles, values: Doubles, variance: float) -> Axes:
    columns = np.ascontiguousarray(columns)
    columns *= np.where(columns[np.abs(columns).argmax(axis=0), np.arange(columns.shape[1])] < 0, -1, 1)
    shares = (max(float(value), 0.0) / variance if variance > 0 else 0.0 for value in values)
    return Axes(mean=mean, columns=columns, explained=tuple(shares))


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
