"""Rows of a flat array at random, each chunk compared with its checksum before the first of its rows is used."""

import numpy as np

from graphsys.core.types import Array, NodeIds
from graphsys.storage.flat import FlatArray


class CheckedRows:
    """A memory map that answers nothing it has not checked; many threads may read at once."""

    def __init__(self, array: FlatArray) -> None:
        self.array = array
        self._rows = array.memmap()
        self._checked = np.zeros(len(array.spec.checksums), np.bool_)  # by chunk

    def take(self, row: NodeIds) -> Array:
        """Return rows ``row`` [Q], each in [0, N): [Q, ...].

        Raises:
            CorruptError: A chunk that holds one of them is not as it was written.

        Cost:
            A chunk (1 MiB) is read whole the first time.
        """
        chunk = np.unique(row // self.array.spec.chunk_rows)
        for index in chunk[~self._checked[chunk]]:
            self.array.read_chunks(int(index))
            self._checked[index] = True
        taken: Array = self._rows[row]
        return taken
