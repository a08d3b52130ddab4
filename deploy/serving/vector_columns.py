"""Columns of Arrow that hold a list of numbers in every row: vectors, features, probabilities."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.wire import Mask

Vectors = npt.NDArray[np.float64]


def vector_column(rows: npt.NDArray[Any], known: Mask | None = None) -> Any:
    """Return ``rows`` [Q, D] as a pyarrow column of lists in their memory, null where not ``known`` [Q]."""
    mask = None if known is None or known.all() else pa.array(~known)
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1], mask=mask)


def arrow_vectors(column: Any, name: str) -> Vectors:
    """Return a column of lists of numbers, all of one length, as [Q, D].

    Raises:
        Problem: 422, it is something else.
    """
    held = column.combine_chunks()
    kind = held.type
    if not is_list(kind) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise Problem(422, f"column '{name}' is of type {kind}; send lists of numbers")
    flat = held.flatten()
    if held.null_count or flat.null_count:
        raise Problem(422, f"column '{name}' has nulls; give a number in every place")
    lengths = np.unique(held.value_lengths().to_numpy(zero_copy_only=False))
    if lengths.size > 1:
        raise Problem(422, f"column '{name}' has lists of {lengths[0]} to {lengths[-1]} numbers; give all one length")
    vectors: Vectors = flat.to_numpy(zero_copy_only=False).astype(np.float64)
    return vectors.reshape(len(held), int(lengths[0]) if lengths.size else 0)


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of lists whose values lie side by side."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
