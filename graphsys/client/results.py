"""What the server answered, in numpy arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """Vectors by id."""

    version: str  # of the table that answered
    found: Mask  # [Q]
    vectors: Vectors  # [Q, dim]; zeros where nothing was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """The nearest neighbours of every query, nearest first."""

    version: str
    metric: str  # cosine, dot: larger is nearer; l2: smaller is
    found: Mask  # [Q]
    num_found: npt.NDArray[np.int64]  # [Q] neighbours of each query; columns beyond say nothing
    ids: npt.NDArray[Any]  # [Q, k] int64 or str objects
    scores: Vectors  # [Q, k]; NaN beyond num_found


@dataclass(frozen=True, slots=True, kw_only=True)
class Inferred:
    """Vectors of nodes that the graph does not have."""

    version: str
    vectors: Vectors  # [Q, dim]
    probabilities: Vectors | None  # [Q, classes]; None: not asked for
    classes: tuple[Any, ...]  # what the columns of probabilities stand for


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Class probabilities by id."""

    version: str
    found: Mask  # [Q]
    probabilities: Vectors  # [Q, classes]; zeros where nothing was found
    classes: tuple[Any, ...]  # what the columns stand for


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInfo:
    """One table that the server knows."""

    version: str
    path: str  # on the server
    state: str  # known, loading, active, retiring or refused
    dim: int
    num_rows: int
    node_type: str
    dtype: str
    provenance: Mapping[str, Any]  # what it was made from, by fingerprint
    error: str | None = None  # why it was refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """All tables that the server knows."""

    active: str | None
    tables: tuple[TableInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloaded:
    """A whole table."""

    version: str
    ids: npt.NDArray[Any]  # [N] int64, or str objects
    vectors: npt.NDArray[Any]  # [N, dim] in the table's type: float32 or float16
