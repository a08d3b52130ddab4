"""Vectors and their external ids as Parquet and ``.npy``, written a block at a time."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graphsys.core.errors import DiskError
from graphsys.core.progress import SILENT, Progress, task
from graphsys.storage.files import atomic_file, drop_cache, remove_path
from graphsys.storage.flat import FlatArray
from graphsys.storage.id_map import Kind

_BLOCK_BYTES = 8 << 20
_ROW_GROUP_BYTES = 32 << 20
_ID_ROWS = 1 << 17


@dataclass(frozen=True, slots=True, kw_only=True)
class IdColumn:
    """The external ids of dense ids 0 .. N - 1, as the id map's arrays hold them."""

    kind: Kind
    num_rows: int
    arrays: Mapping[str, FlatArray]

    @property
    def type(self) -> pa.DataType:
        """Type of the ids in Arrow."""
        return pa.large_string() if self.kind == "string" else pa.int64()

    def block(self, start: int, stop: int) -> pa.Array:
        """Return the ids of nodes [start, stop), by direct reads."""
        if self.kind == "identity":
            return pa.array(np.arange(start, stop, dtype=np.int64))
        if self.kind == "integer":
            return pa.array(self.arrays["ids"].read(start, stop))
        offsets = self.arrays["offsets"].read(start, stop + 1)
        text = self.arrays["bytes"].read(int(offsets[0]), int(offsets[-1]))
        return pa.LargeStringArray.from_buffers(
            stop - start, pa.py_buffer(np.ascontiguousarray(offsets - offsets[0])), pa.py_buffer(text)
        )


def export_parquet(
    path: Path,
    vectors: FlatArray,
    ids: IdColumn,
    *,
    metadata: Mapping[str, str],
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> None:
    """Write columns ``id`` (int64 or string) and ``embedding`` (a list of as many float32 as a vector has).

    Args:
        vectors: [N, dim] float32 or float16.
        metadata: Texts that the file's schema carries.

    Raises:
        CorruptError: A chunk of vectors is not as it was written; ``path`` is as it was.
        DiskError: ``path`` exists, or the system refused; ``path`` is as it was.
    """
    _refuse_existing([path], overwrite)
    embedding = pa.list_(pa.float32(), vectors.shape[1])
    schema = pa.schema([("id", ids.type), ("embedding", embedding)], metadata=dict(metadata))
    with (
        task(progress, f"export {path.name}", ids.num_rows, "rows") as work,
        atomic_file(path) as file,
        pq.ParquetWriter(file, schema) as writer,
    ):
        for first, rows in vectors.checked_blocks(max(1, _ROW_GROUP_BYTES // vectors.spec.row_nbytes)):
            flat = pa.array(np.ascontiguousarray(rows, np.float32).reshape(-1))
            column = pa.FixedSizeListArray.from_arrays(flat, type=embedding)
            writer.write_batch(pa.record_batch([ids.block(first, first + rows.shape[0]), column], schema=schema))
            _clean(file)
            work.advance(rows.shape[0])


def export_npy(
    path: Path, vectors: FlatArray, ids: IdColumn, *, overwrite: bool = False, progress: Progress = SILENT
) -> Path | None:
    """Write ``vectors`` [N, dim] as ``.npy``; return the file of the ids [N] beside it, or None when row i is id i.

    Raises:
        CorruptError: A chunk of vectors is not as it was written; both files are as they were.
        DiskError: A file exists, or the system refused; each file is whole or as it was.
    """
    ids_path = path.with_name(f"{path.name.removesuffix('.npy')}.ids.npy")
    has_ids = ids.kind != "identity"
    _refuse_existing([path, ids_path] if has_ids else [path], overwrite)
    if overwrite and not has_ids:
        remove_path(ids_path)  # of an earlier table: it would name the wrong rows
    ids_file = atomic_file(ids_path) if has_ids else nullcontext()
    with ids_file as beside, task(progress, f"export {path.name}", ids.num_rows, "rows") as work:
        if beside is not None:
            _write_ids(beside, ids)
        with atomic_file(path) as file:
            _npy_header(file, vectors.spec.dtype, vectors.shape)
            for _, rows in vectors.checked_blocks(max(1, _BLOCK_BYTES // vectors.spec.row_nbytes)):
                file.write(rows.data)
                _clean(file)
                work.advance(rows.shape[0])
    return ids_path if has_ids else None


def _write_ids(file: BinaryIO, ids: IdColumn) -> None:
    dtype = np.dtype(np.int64) if ids.kind == "integer" else _text_type(ids)
    _npy_header(file, dtype, (ids.num_rows,))
    for block in _id_blocks(ids):
        file.write(np.array(block, dtype).data)
        _clean(file)


def _id_blocks(ids: IdColumn) -> Iterator[pa.Array]:
    for start in range(0, ids.num_rows, _ID_ROWS):
        yield ids.block(start, min(start + _ID_ROWS, ids.num_rows))


def _text_type(ids: IdColumn) -> np.dtype[np.str_]:
    """Return the fixed-width text type that holds every id; ``.npy`` knows no other without pickle."""
    longest = max((pc.max(pc.utf8_length(block)).as_py() for block in _id_blocks(ids)), default=1)
    return np.dtype(f"<U{max(longest, 1)}")


def _npy_header(file: BinaryIO, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _clean(file: BinaryIO) -> None:
    # Dirty pages count against a memory cgroup; see SequentialWriter.
    file.flush()
    drop_cache(file.fileno())


def _refuse_existing(paths: list[Path], overwrite: bool) -> None:
    for path in paths:
        if path.exists() and not overwrite:
            raise DiskError(f"{path} exists; choose another name, or pass --overwrite to replace it")
