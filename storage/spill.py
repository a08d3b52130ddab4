"""Records on their way through a sort: one file per level, written in whole pages, gone from the folder once sealed."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphsys.storage.direct import PAGE, DirectFile, align_up, aligned_empty
from graphsys.storage.direct_writer import DirectWriter
from graphsys.storage.files import disk_errors

Records = npt.NDArray[np.uint64]  # [C, W]

_WORD = 8


class SpillFile:
    """Appends runs of records, each to one of several buckets, and reads the buckets back.

    The file's name is removed as soon as it is sealed; its space is free again when the last bucket is forgotten.
    """

    def __init__(self, path: Path, num_buckets: int, words: int) -> None:
        self.words = words
        self._path = path
        self._writer = DirectWriter(path)
        self._reader: DirectFile | None = None
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(num_buckets)]

    def append(self, index: int, records: Records) -> None:
        """Append ``records`` [C, W] to bucket ``index``; every run but a bucket's last one fills whole pages."""
        self._extents[index].append((self._writer.nbytes, records.shape[0]))
        self._writer.write(records.reshape(-1).view(np.uint8))
        padding = -self._writer.nbytes % PAGE
        if padding:
            self._writer.write(bytes(padding))

    def seal(self) -> None:
        """End the writing; buckets may be read from now on."""
        self._writer.close()
        reader = DirectFile(self._path)
        weakref.finalize(self, reader.close)
        self._reader = reader
        with disk_errors("remove", self._path):
            self._path.unlink()

    def bucket(self, index: int) -> "Bucket":
        """Return bucket ``index`` of a sealed file."""
        return Bucket(file=self, extents=tuple(self._extents[index]))

    def read(self, offset: int, num_records: int, out: npt.NDArray[np.uint8]) -> None:
        """Read one run into the front of ``out``, a page-aligned buffer with room for whole pages."""
        assert self._reader is not None, "a spill file is read after it was sealed"
        self._reader.read_into(offset, out[: align_up(num_records * self.words * _WORD)])

    def remove(self) -> None:
        """Forget the file, sealed or not."""
        if self._reader is None:
            self._writer.abort()
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Some records of a sealed spill file."""

    file: SpillFile
    extents: tuple[tuple[int, int], ...]  # (byte offset, records) in the order of writing

    @property
    def num_records(self) -> int:
        """Records in the bucket."""
        return sum(rows for _, rows in self.extents)

    @property
    def nbytes(self) -> int:
        """Bytes of the bucket's records."""
        return self.num_records * self.file.words * _WORD

    def read(self) -> Records:
        """Return all records [C, W], in the order in which they were added."""
        raw = aligned_empty(align_up(self.nbytes))
        place = 0
        for offset, rows in self.extents:
            self.file.read(offset, rows, raw[place:])
            place += rows * self.file.words * _WORD
        return raw[: self.nbytes].view(np.uint64).reshape(-1, self.file.words)

    def pieces(self) -> Iterator[Records]:
        """Yield the records run by run."""
        for offset, rows in self.extents:
            raw = aligned_empty(align_up(rows * self.file.words * _WORD))
            self.file.read(offset, rows, raw)
            yield raw[: rows * self.file.words * _WORD].view(np.uint64).reshape(-1, self.file.words)
