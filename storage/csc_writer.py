"""Writes the arrays of one edge type while its edges arrive by ascending destination."""

from pathlib import Path

import numpy as np

from graphsys.core.types import Array, EdgeType, NodeIds, edge_type_key
from graphsys.storage.flat import FlatSpec, FlatWriter
from graphsys.storage.jit import njit

_INDPTR_PIECE = 1 << 17  # entries of indptr that are made at once


class CscWriter:
    """Appends edges in CSC order; nothing of it grows with the graph.

    Args:
        folder: The store being made.
        num_src: Nodes of the source type.
        num_dst: Nodes of the destination type.
        fields: Further arrays: name -> (dtype, row shape).
    """

    def __init__(
        self,
        folder: Path,
        edge_type: EdgeType,
        *,
        num_src: int,
        num_dst: int,
        fields: dict[str, tuple[type, tuple[int, ...]]],
    ) -> None:
        key = edge_type_key(edge_type)
        base = f"topology/{key}"
        self.num_edges = 0
        self._num_dst = num_dst
        self._next_dst = 0  # first destination whose indptr entry is not written
        self._names = {name: f"edges/{key}/{name}" if name == "attr" else f"{base}/{name}" for name in fields}
        self._names |= {"indptr": f"{base}/indptr", "indices": f"{base}/indices"}
        # 32-bit ids halve the largest array; they do as long as every id fits.
        index_type = np.int32 if num_src <= np.iinfo(np.int32).max else np.int64
        types: dict[str, tuple[type, tuple[int, ...]]] = {"indptr": (np.int64, ()), "indices": (index_type, ())}
        self._writers = {
            name: FlatWriter(folder / self._names[name], dtype, shape)
            for name, (dtype, shape) in {**types, **fields}.items()
        }

    def append(self, dst: NodeIds, src: NodeIds, fields: dict[str, Array]) -> None:
        """Append edges [C]; ``dst`` ascends and continues where the last call ended."""
        if dst.shape[0] == 0:
            return
        self._advance(int(dst[-1]) + 1, dst)
        self._writers["indices"].append(src)
        for name, values in fields.items():
            self._writers[name].append(values)
        self.num_edges += dst.shape[0]

    def _advance(self, stop: int, dst: NodeIds) -> None:
        """Write indptr[d] for all d in [next, stop): the number of edges whose destination is below d."""
        place = 0
        for first in range(self._next_dst, stop, _INDPTR_PIECE):
            entries = np.empty(min(first + _INDPTR_PIECE, stop) - first, np.int64)
            place = _count_below(dst, place, first, self.num_edges, entries)
            self._writers["indptr"].append(entries)
        self._next_dst = max(stop, self._next_dst)

    def close(self) -> dict[str, FlatSpec]:
        """Finish all arrays; return their manifest entries."""
        self._advance(self._num_dst + 1, np.empty(0, np.int64))
        return {self._names[name]: writer.close() for name, writer in self._writers.items()}

    def abort(self) -> None:
        """Close the files; the folder is left to whoever made it."""
        for writer in self._writers.values():
            writer.abort()


@njit
def _count_below(dst: NodeIds, place: int, first: int, base: int, entries: NodeIds) -> int:
    """Fill ``entries`` [C]: ``base`` and the destinations below first, first + 1, ...; return where to go on.

    Args:
        dst: [E] ascending.
        place: Destinations that are known to be below ``first``.
    """
    for row in range(entries.shape[0]):
        while place < dst.shape[0] and dst[place] < first + row:
            place += 1
        entries[row] = base + place
    return place
