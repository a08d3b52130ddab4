"""Zarr v3 arrays whose bytes are one flat run of rows, for memory maps and direct reads.

An array is one shard: uncompressed inner chunks along axis 0 follow each other, so that the front of the chunk file is
the array in C order; the shard index comes last. Any Zarr v3 reader opens it. Layout: ``docs/format/store.md``.

Source:
    Zarr specification v3, sharding codec: the index holds (offset, nbytes) uint64 pairs, then their crc32c.
"""

import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from graphsys.core.errors import ArtefactError, CorruptError
from graphsys.core.progress import Task
from graphsys.storage.chunk_hash import ChunkHash
from graphsys.storage.direct import Bytes, DirectFile
from graphsys.storage.direct_writer import BUFFER_BYTES, DirectWriter
from graphsys.storage.files import disk_errors
from graphsys.storage.sequential import FULL_SPEED_BYTES, read_through

CHUNK_BYTES = 1 << 20  # inner chunk: the unit of checksums and of ranged reads
_PREFETCH_GAP = 64 << 10  # bytes between wanted rows that are read rather than a request more
_PREFETCH_BYTES = 128 << 10  # of one request: of a longer one, Linux reads no more
_ZARR_TYPES = {
    "uint8": "uint8", "bool": "bool", "int32": "int32", "int64": "int64", "uint64": "uint64",
    "float16": "float16", "float32": "float32", "float64": "float64",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatSpec:
    """What a manifest says of one flat array."""

    dtype: str
    shape: tuple[int, ...]
    chunk_rows: int
    checksums: tuple[str, ...]  # xxh3_64 of each inner chunk, as 16 hex digits, padding included

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "chunk_rows": self.chunk_rows,
            "checksums": list(self.checksums),
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "FlatSpec":
        """Return the spec that :meth:`as_dict` wrote."""
        return cls(
            dtype=value["dtype"],
            shape=tuple(value["shape"]),
            chunk_rows=value["chunk_rows"],
            checksums=tuple(value["checksums"]),
        )

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.shape[1:]

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return int(np.dtype(self.dtype).itemsize * np.prod(self.row_shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, padding and index left out."""
        return self.shape[0] * self.row_nbytes

    @property
    def chunk_nbytes(self) -> int:
        """Bytes of one inner chunk, the padded last one too."""
        return self.chunk_rows * self.row_nbytes


def rows_per_chunk(row_nbytes: int) -> int:
    """Return how many rows one inner chunk holds: about 1 MiB, at least one row."""
    return max(1, CHUNK_BYTES // max(row_nbytes, 1))


def chunk_file(folder: Path, ndim: int) -> Path:
    """Return the one chunk file of the array at ``folder``."""
    return folder.joinpath("c", *["0"] * ndim)


class FlatWriter:
    """Appends rows to a new flat array; its length may be unknown until it is closed.

    Not atomic by itself: it writes below a folder that :func:`graphsys.storage.files.atomic_folder` yields.

    Args:
        buffer_bytes: Of each of the two buffers through which bytes go past the page cache; a large array is worth
            large ones.
    """

    def __init__(
        self, folder: Path, dtype: npt.DTypeLike, row_shape: tuple[int, ...] = (), *, buffer_bytes: int = BUFFER_BYTES
    ) -> None:
        self.folder = folder
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.row_shape = tuple(row_shape)
        self.num_rows = 0
        self._row_nbytes = int(self.dtype.itemsize * np.prod(self.row_shape, dtype=np.int64))
        if self._row_nbytes == 0:
            raise ArtefactError(f"{folder}: rows of shape {self.row_shape} hold no bytes; give at least one column")
        self._chunk_rows = rows_per_chunk(self._row_nbytes)
        self._file = DirectWriter(chunk_file(folder, 1 + len(self.row_shape)), buffer_bytes=buffer_bytes)
        self._checksums: list[str] = []
        self._hash = ChunkHash(self._chunk_rows * self._row_nbytes)

    def append(self, rows: npt.ArrayLike) -> None:
        """Append ``rows`` [C, *row_shape]; they are cast to the array's dtype."""
        block = np.ascontiguousarray(rows, dtype=self.dtype)
        if block.shape[1:] != self.row_shape:
            raise ArtefactError(f"{self.folder}: rows of shape {block.shape[1:]} do not fit {self.row_shape}")
        if block.shape[0] == 0:
            return
        self._write(block.reshape(-1).view(np.uint8))
        self.num_rows += block.shape[0]

    def _write(self, raw: Bytes) -> None:
        self._file.write(raw)
        self._checksums += self._hash.update(raw)

    def close(self) -> FlatSpec:
        """Write the padding, the shard index and ``zarr.json``; return the array's entry for the manifest."""
        if self._hash.missing:
            self._write(np.zeros(self._hash.missing, np.uint8))
        spec = FlatSpec(
            dtype=self.dtype.name,
            shape=(self.num_rows, *self.row_shape),
            chunk_rows=self._chunk_rows,
            checksums=tuple(self._checksums),
        )
        self._file.write(shard_index(spec))
        self._file.close()
        with disk_errors("write", self.folder):
            (self.folder / "zarr.json").write_bytes(array_metadata(spec))
        return spec

    def abort(self) -> None:
        """Close the file; the folder is left to whoever made it."""
        self._file.abort()


def write_array(folder: Path, array: npt.NDArray[Any]) -> FlatSpec:
    """Write a whole in-memory array [N, ...] as a flat array."""
    writer = FlatWriter(folder, array.dtype, array.shape[1:])
    try:
        writer.append(array)
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def shard_index(spec: FlatSpec) -> bytes:
    """Return the shard index: where each inner chunk lies, then the index's crc32c."""
    num_chunks = len(spec.checksums)
    # An array without rows still has a shard of one chunk, which the index declares absent (all bits set).
    if num_chunks == 0:
        pairs = np.full((1, 2), np.iinfo(np.uint64).max, "<u8")
    else:
        pairs = np.empty((num_chunks, 2), "<u8")
        pairs[:, 0] = np.arange(num_chunks, dtype=np.uint64) * np.uint64(spec.chunk_nbytes)
        pairs[:, 1] = spec.chunk_nbytes
    raw = pairs.tobytes()
    checksum: int = google_crc32c.value(raw)
    return raw + checksum.to_bytes(4, "little")


def array_metadata(spec: FlatSpec) -> bytes:
    """Return the ``zarr.json`` of a flat array."""
    chunk_shape = [spec.chunk_rows, *spec.row_shape]
    shard_shape = [max(len(spec.checksums), 1) * spec.chunk_rows, *spec.row_shape]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    sharding = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": chunk_shape,
            "codecs": [little],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        },
    }
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.shape),
        "data_type": _ZARR_TYPES[spec.dtype],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": shard_shape}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": False if spec.dtype == "bool" else 0.0 if spec.dtype.startswith("float") else 0,
        "codecs": [sharding],
        "attributes": {},
    }
    return json.dumps(metadata, indent=2).encode() + b"\n"


class FlatArray:
    """A flat array opened for reading."""

    def __init__(self, folder: Path, spec: FlatSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.path = chunk_file(folder, len(spec.shape))
        expected = len(spec.checksums) * spec.chunk_nbytes + len(shard_index(spec))
        with disk_errors("read", self.path):
            found = self.path.stat().st_size
        if found != expected:
            raise CorruptError(
                f"{self.path} is truncated or overwritten: {found} bytes found, {expected} expected. "
                f"Restore the file or make the artefact again"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.spec.shape

    def memmap(self, *, sequential: bool = False) -> npt.NDArray[Any]:
        """Return a read-only view of the file, as a plain ndarray.

        Args:
            sequential: Rows will be read front to back: the kernel reads ahead; otherwise it is told not to.
        """
        if self.spec.shape[0] == 0:
            return np.empty(self.spec.shape, self.spec.dtype)
        with disk_errors("read", self.path), self.path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), self.spec.nbytes, access=mmap.ACCESS_READ)
        mapped.madvise(mmap.MADV_SEQUENTIAL if sequential else mmap.MADV_RANDOM)
        return np.frombuffer(mapped, self.spec.dtype).reshape(self.spec.shape)

    def prefetch(self, row: npt.NDArray[np.int64] | None = None) -> None:
        """Have the kernel read pages ahead, many at once: through a map it reads them one by one.

        Args:
            row: [*] row numbers in range, ascending, repeats allowed; None: all rows.

        Raises:
            DiskError: The file cannot be opened.
        """
        stretches = [(0, self.spec.nbytes)] if row is None else self._stretches(row)
        with disk_errors("read", self.path), self.path.open("rb") as file:
            for start, stop in stretches:
                for place in range(start, stop, _PREFETCH_BYTES):
                    nbytes = min(stop - place, _PREFETCH_BYTES)
                    os.posix_fadvise(file.fileno(), place, nbytes, os.POSIX_FADV_WILLNEED)

    def _stretches(self, row: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """Return the bytes [start, stop) of rows that lie near each other."""
        if not row.size:
            return []
        start = row * self.spec.row_nbytes // mmap.PAGESIZE * mmap.PAGESIZE
        stop = (row + 1) * self.spec.row_nbytes
        apart = np.flatnonzero(start[1:] - stop[:-1] > _PREFETCH_GAP)
        firsts, lasts = start[np.r_[0, apart + 1]], stop[np.r_[apart, -1]]
        return list(zip(firsts.tolist(), lasts.tolist(), strict=True))

    def read(self, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return rows [start, stop) in private memory, by direct reads."""
        stop = self.spec.shape[0] if stop is None else stop
        row = self.spec.row_nbytes
        with DirectFile(self.path) as file:
            raw = file.read(start * row, (stop - start) * row)
        return raw.view(self.spec.dtype).reshape(stop - start, *self.spec.row_shape)

    def blocks(self, rows: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield (first row, rows) from front to back, ``rows`` at a time."""
        for start in range(0, self.spec.shape[0], rows):
            yield start, self.read(start, min(start + rows, self.spec.shape[0]))

    def checked_blocks(self, rows: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield as :meth:`blocks` does, but only rows of chunks that are as they were written.

        Reads whole chunks, so ``rows`` may be fewer than are in memory.

        Raises:
            CorruptError: A chunk differs.
        """
        spec = self.spec
        step = max(1, rows // spec.chunk_rows)
        for index in range(0, len(spec.checksums), step):
            chunks = self.read_chunks(index, min(step, len(spec.checksums) - index))
            for start in range(0, chunks.shape[0], rows):
                yield index * spec.chunk_rows + start, chunks[start : start + rows]

    def read_chunks(self, index: int, count: int = 1) -> npt.NDArray[Any]:
        """Return the rows of ``count`` inner chunks from chunk ``index`` on, once they are known to be unchanged.

        Raises:
            CorruptError: One differs.
        """
        spec = self.spec
        with DirectFile(self.path) as file:
            raw = file.read(index * spec.chunk_nbytes, count * spec.chunk_nbytes)
        for place, found in enumerate(ChunkHash(spec.chunk_nbytes).update(raw), index):
            self._compare(place, found)
        num_rows = min(count * spec.chunk_rows, spec.shape[0] - index * spec.chunk_rows)
        return raw[: num_rows * spec.row_nbytes].view(spec.dtype).reshape(num_rows, *spec.row_shape)

    def verify(self, task: Task | None = None, *, memory: int = FULL_SPEED_BYTES) -> None:
        """Read everything and check the metadata, every chunk and the index.

        Args:
            task: Is advanced by the bytes checked.
            memory: Bytes that the buffers may take.

        Raises:
            CorruptError: The first byte range that differs, by file and chunk.
        """
        metadata = self.folder / "zarr.json"
        with disk_errors("read", metadata):
            if metadata.read_bytes() != array_metadata(self.spec):
                raise CorruptError(f"{metadata} is corrupt: its bytes differ from what the manifest implies")
        chunks_nbytes = len(self.spec.checksums) * self.spec.chunk_nbytes
        chunk_hash, index = ChunkHash(self.spec.chunk_nbytes), 0
        with DirectFile(self.path) as file:
            for block in read_through(file, chunks_nbytes, memory=memory):
                for found in chunk_hash.update(block):
                    self._compare(index, found)
                    index += 1
                if task is not None:
                    task.advance(block.nbytes)
            index_bytes = shard_index(self.spec)
            tail = file.read(chunks_nbytes, len(index_bytes))
        if tail.tobytes() != index_bytes:
            raise CorruptError(f"{self.path}: the shard index is corrupt. Restore the file or make the artefact again")

    def _compare(self, index: int, found: str) -> None:
        expected, nbytes = self.spec.checksums[index], self.spec.chunk_nbytes
        if found != expected:
            raise CorruptError(
                f"{self.path}: chunk {index} is corrupt: xxh3 {found}, the manifest says {expected} "
                f"({nbytes} bytes at offset {index * nbytes}). Restore the file or make the artefact again"
            )
