"""How scattered rows of a flat array are read: which of them share a read."""

from dataclasses import dataclass

import numpy as np

from graphsys.core.errors import ArtefactError, CorruptError
from graphsys.core.types import NodeIds
from graphsys.storage.direct import PAGE, WORD, Bytes, DirectFile, Words, align_down, align_up
from graphsys.storage.flat import FlatArray
from graphsys.storage.jit import njit


@dataclass(frozen=True, slots=True, kw_only=True)
class RowExtents:
    """How rows of a flat array are read: in page-aligned extents that near rows share."""

    num_rows: int
    num_words: int  # of four bytes, per row
    gap: int  # bytes between two rows from which on they are read apart
    extent: int  # bytes that an extent spans at most; a longer row is read whole

    @classmethod
    def of(cls, array: FlatArray, *, gap: int, extent: int) -> "RowExtents":
        """Return how to read rows of features.

        Raises:
            ArtefactError: ``array`` is not [N, D] float32.
        """
        spec = array.spec
        if spec.dtype != "float32" or len(spec.shape) != 2:
            raise ArtefactError(f"{array.folder} holds {spec.dtype} of shape {spec.shape}; features are [N, D] float32")
        return cls(num_rows=spec.shape[0], num_words=spec.shape[1], gap=gap, extent=extent)

    @classmethod
    def of_ids(cls, array: FlatArray, *, gap: int, extent: int) -> "RowExtents":
        """Return how to read single ids.

        Raises:
            ArtefactError: ``array`` is not [N] int32 or int64.
        """
        spec = array.spec
        if spec.dtype not in ("int32", "int64") or len(spec.shape) != 1:
            raise ArtefactError(f"{array.folder} holds {spec.dtype} of shape {spec.shape}; ids are [N] int32 or int64")
        return cls(num_rows=spec.shape[0], num_words=spec.row_nbytes // WORD, gap=gap, extent=extent)

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row in the store, without padding."""
        return WORD * self.num_words

    @property
    def buffer_nbytes(self) -> int:
        """Bytes of a buffer that takes any extent, with the pages at its ends."""
        return align_up(max(self.extent, self.row_nbytes)) + 2 * PAGE

    def split(self, ascending: NodeIds) -> NodeIds:
        """Return [K + 1] int64: extent ``k`` reads ``ascending[first[k]:first[k + 1]]``."""
        first = np.empty(ascending.shape[0] + 1, np.int64)
        num_extents = _split(ascending, self.row_nbytes, self.gap, self.extent, first)
        return first[: num_extents + 1].copy()

    def read(self, file: DirectFile, ascending: NodeIds, buffer: Bytes) -> tuple[Words, int]:
        """Read one extent; return the rows from its first id to its last, a view of ``buffer``, and the bytes read."""
        begin = int(ascending[0]) * self.row_nbytes
        end = (int(ascending[-1]) + 1) * self.row_nbytes
        if end > file.nbytes:
            raise CorruptError(
                f"{file.path} is truncated: row {ascending[-1]} ends at byte {end}, the file at byte {file.nbytes}. "
                f"Restore the file or import the graph again"
            )
        start = align_down(begin)
        raw = buffer[: align_up(end) - start]
        file.read_into(start, raw)
        return raw[begin - start : end - start].view(np.uint32).reshape(-1, self.num_words), raw.nbytes


@njit
def _split(ascending: NodeIds, row_nbytes: int, gap: int, extent: int, first: NodeIds) -> int:
    """Write the index at which each extent starts, and the end; return the number of extents."""
    num_extents = 0
    begin = 0
    for index in range(ascending.shape[0]):
        end = (ascending[index] + 1) * row_nbytes
        far = index == 0 or (ascending[index] - ascending[index - 1] - 1) * row_nbytes >= gap
        if far or end - begin > extent:
            first[num_extents] = index
            num_extents += 1
            begin = end - row_nbytes
    first[num_extents] = ascending.shape[0]
    return num_extents
