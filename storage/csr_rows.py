"""Sparse feature rows (compressed sparse rows in four arrays) made dense a few at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from graphsys.core.errors import InputError
from graphsys.core.types import Array
from graphsys.storage.array_bundle import ArrayBundle
from graphsys.storage.array_files import ArrayFile, numeric
from graphsys.storage.jit import njit

_MAX_COLUMNS = 1 << 24  # rows are made dense: one of this width takes 64 MiB
_PARTS = ("x_indptr", "x_indices", "x_data", "x_shape")


@dataclass(frozen=True, slots=True, kw_only=True)
class CsrRows:
    """A sparse matrix on disk."""

    indptr: ArrayFile  # [N + 1]
    indices: ArrayFile  # [nnz] column of each entry
    data: ArrayFile  # [nnz]
    shape: tuple[int, int]  # N, D

    def blocks(self, rows: int) -> Iterator[Array]:
        """Yield dense rows [<= rows, D], front to back; entries of one place are added up.

        Raises:
            InputError: The parts contradict each other.
        """
        num_rows, num_columns = self.shape
        with self.indptr.cursor() as pointers, self.indices.cursor() as indices, self.data.cursor() as data:
            last = pointers.take(1).astype(np.int64)
            if last[0] != 0:
                raise InputError(f"{self.indptr.shown} begins with {last[0]}; expected 0")
            for first in range(0, num_rows, rows):
                pointer = np.concatenate([last, pointers.take(min(rows, num_rows - first)).astype(np.int64)])
                self._check(pointer, first)
                count = int(pointer[-1] - pointer[0])
                values = data.take(count)
                dense = np.zeros((pointer.shape[0] - 1, num_columns), np.result_type(values.dtype, np.float32))
                bad = _densify(pointer - pointer[0], indices.take(count).astype(np.int64), values, dense)
                if bad >= 0:
                    row = first + int(np.searchsorted(pointer - pointer[0], bad, side="right")) - 1
                    raise InputError(f"{self.indices.shown}: row {row} names a column outside [0, {num_columns})")
                last = pointer[-1:]
                yield dense
        if last[0] != self.indices.num_rows:
            raise InputError(f"{self.indptr.shown} ends with {last[0]}; expected {self.indices.num_rows} entries")

    def _check(self, pointer: Array, first: int) -> None:
        # Compared, for a difference may overflow: an unsigned offset beyond 63 bits has turned negative.
        falls = np.flatnonzero(pointer[1:] < pointer[:-1])
        if falls.size:
            raise InputError(f"{self.indptr.shown} descends at row {first + int(falls[0])}; expected ascending offsets")
        if pointer[-1] > self.indices.num_rows:
            raise InputError(
                f"{self.indptr.shown} reaches {pointer[-1]}, but there are {self.indices.num_rows} entries in "
                f"{self.indices.shown}"
            )


@njit
def _densify(pointer: Array, indices: Array, values: Array, dense: Array) -> int:
    for row in range(dense.shape[0]):
        for place in range(pointer[row], pointer[row + 1]):
            column = indices[place]
            if column < 0 or column >= dense.shape[1]:
                return int(place)
            dense[row, column] += values[place]
    return -1


def find_csr(bundle: ArrayBundle) -> CsrRows | None:
    """Return the sparse features of a bundle, or None.

    Raises:
        InputError: Only some of the four parts are there, or their lengths disagree.
    """
    found = {name: bundle.get(name) for name in _PARTS}
    if not any(found.values()):
        return None
    parts = [bundle.need(name, "sparse features") for name in _PARTS]
    for part in parts[:3]:
        if len(part.shape) != 1:
            raise InputError(f"{part.shown} has shape {list(part.shape)}; expected one dimension")
    indptr, indices = numeric(parts[0], "iu", "whole numbers"), numeric(parts[1], "iu", "whole numbers")
    data, shape = numeric(parts[2], "fiub", "numbers"), numeric(parts[3], "iu", "two whole numbers").read().reshape(-1)
    if shape.shape[0] != 2:
        raise InputError(f"{parts[3].shown} holds {shape.shape[0]} numbers; expected rows and columns")
    if not 0 < shape[1] <= _MAX_COLUMNS:
        raise InputError(f"{parts[3].shown} says {shape[1]} columns; expected 1 to {_MAX_COLUMNS}")
    if indptr.num_rows != shape[0] + 1:
        raise InputError(f"{indptr.shown} has {indptr.num_rows} entries; expected {shape[0] + 1}, one more than rows")
    if indices.num_rows != data.num_rows:
        raise InputError(f"{indices.shown} has {indices.num_rows} entries and {data.shown} has {data.num_rows}")
    return CsrRows(indptr=indptr, indices=indices, data=data, shape=(int(shape[0]), int(shape[1])))
