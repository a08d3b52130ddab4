"""Single ids of a flat array by place, past the page cache: any number of them in one ascending pass over the file."""

from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds
from graphsys.storage.direct_rows import GATHER_RINGS, GATHER_THREADS, DirectRows, Engine
from graphsys.storage.features import GATHER_EXTENT, GATHER_GAP, ReadCount
from graphsys.storage.flat import FlatArray
from graphsys.storage.ring import DEPTH
from graphsys.storage.row_extents import RowExtents

PASS_BYTES = 12  # per place beside the ids: the place, and of a part of them place, order and twice the extent
_PARTS = 8  # of a pass: their arrays take an eighth of what those of all places would
_BITS = 63  # of a place and its number together


class DirectIds:
    """Ids of a store's array, read when asked for. For one thread.

    Args:
        array: [N] int32 or int64.
        memory: bytes that the buffers may take; with few of them fewer reads are in flight.

    Raises:
        ArtefactError: The array holds something else.
    """

    def __init__(self, array: FlatArray, *, memory: int) -> None:
        self.count = ReadCount()
        self._array = array
        self._extents = RowExtents.of_ids(array, gap=GATHER_GAP, extent=GATHER_EXTENT)
        buffer = self._extents.buffer_nbytes
        self._rows = DirectRows(
            array.path,
            self._extents,
            threads=max(1, min(memory // buffer, GATHER_THREADS)),
            rings=memory >= GATHER_RINGS * (DEPTH + 1) * buffer,
        )

    @staticmethod
    def least_nbytes(array: FlatArray) -> int:
        """Return the bytes of the buffers that one read at a time takes."""
        return RowExtents.of_ids(array, gap=GATHER_GAP, extent=GATHER_EXTENT).buffer_nbytes

    @staticmethod
    def most_nbytes(array: FlatArray) -> int:
        """Return the bytes of the buffers beyond which more are of no use."""
        return GATHER_RINGS * (DEPTH + 1) * DirectIds.least_nbytes(array)

    @property
    def engine(self) -> Engine:
        """What keeps reads in flight."""
        return self._rows.engine

    def take(self, place: NodeIds) -> npt.NDArray[np.int32] | npt.NDArray[np.int64]:
        """Return [P] the id at each place, in the array's dtype; what ``place`` held is lost.

        Args:
            place: [P] int64 places in [0, N), any order, repeats allowed.

        Raises:
            IndexError: A place is outside the array.
            CorruptError: The file is truncated.
            DiskError: The system refused a read.

        Cost:
            Sorts the places; ``PASS_BYTES`` of memory per place, and the ids.
        """
        out, num_ids = np.empty(place.shape[0], self._array.spec.dtype), self._extents.num_rows
        if place.shape[0] and (place.min() < 0 or place.max() >= num_ids):
            wrong = place.min() if place.min() < 0 else place.max()
            raise IndexError(f"place {wrong} is outside {self._array.folder}, which holds {num_ids} ids")
        step = 1 << (_BITS - num_ids.bit_length())  # beyond this many, a place and its number are too long for a word
        for start in range(0, place.shape[0], step):
            self._take_pass(place[start : start + step], out[start : start + step])
        return out

    def _take_pass(self, place: NodeIds, out: npt.NDArray[np.int32] | npt.NDArray[np.int64]) -> None:
        shift = max(place.shape[0] - 1, 1).bit_length()
        keys = _number(place, shift)
        keys.sort()
        words, step = out.view(np.uint32).reshape(-1, self._extents.num_words), -(-keys.shape[0] // _PARTS)
        for start in range(0, keys.shape[0], step):
            part = keys[start : start + step]
            read_bytes = self._rows.gather(part >> shift, part & ((1 << shift) - 1), words)
            self.count.add(useful_bytes=part.shape[0] * self._extents.row_nbytes, read_bytes=read_bytes)

    def close(self) -> None:
        """Wait for reads in flight, then close the file."""
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _number(place: NodeIds, shift: int) -> NodeIds:
    """Put each place's number into its lower bits, so that plain numbers are sorted, without a further array of all."""
    place <<= shift
    for start in range(0, place.shape[0], 1 << 16):
        part = place[start : start + (1 << 16)]
        part |= np.arange(start, start + part.shape[0])
    return place
