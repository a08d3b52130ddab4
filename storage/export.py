"""Vectors and their external ids as Parquet and ``.npy``, written a block at a time."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from graphsys.core.errors import ConfigError, DiskError
from graphsys.core.progress import SILENT, Progress, task
from graphsys.storage.files import atomic_file, drop_cache, remove_path
from graphsys.storage.flat import FlatArray
from graphsys.storage.id_map import Kind

_BLOCK_BYTES = 8 << 20
_ROW_GROUP_BYTES = 32 << 20
_MOST_GROUP_ROWS = 1 << 20  # so that the ids of a group stay below the 2 GiB of a string column
_ID_ROWS = 1 << 17
_TIME = pa.timestamp("us", "UTC")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetColumns:
    """Names of the columns of a Parquet export; an empty name leaves a time out."""

    id: str = "id"
    vector: str = "embedding"
    event_time: str = "event_timestamp"
    created: str = "created"

    def __post_init__(self) -> None:
        """Refuse columns without a name, and two of one name.

        Raises:
            ConfigError: There are such.
        """
        names = [name for field in fields(self) if (name := getattr(self, field.name))]
        if not self.id or not self.vector:
            raise ConfigError("the columns of ids and of vectors need a name; only a time may be left out")
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two columns of the export are called '{name}'; give each a name of its own")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetShape:
    """How a table looks in Parquet; the defaults are what feature stores load.

    Source:
        Feast's offline file source: a column per entity, one per feature, the time at which the features became true
        (joins take the newest row up to the time asked about) and the time at which the row was written (of rows with
        equal times the newest written wins). It takes ``list<float>`` for an array, but no list of fixed size.
    """

    columns: ParquetColumns = ParquetColumns()
    event_time: datetime  # of all rows
    created: datetime
    fixed_size: bool = False  # vectors as a list of fixed size, which Arrow readers need not check

    def schema(self, ids: IdColumn, dim: int, metadata: Mapping[str, str]) -> pa.Schema:
        """Return the schema of a file of vectors with ``dim`` numbers."""
        names = self.columns
        columns = [
            (names.id, pa.string() if ids.kind == "string" else pa.int64()),
            (names.vector, pa.list_(pa.float32(), dim if self.fixed_size else -1)),
            *((name, _TIME) for name in (names.event_time, names.created) if name),
        ]
        return pa.schema(columns, metadata=dict(metadata))

    def group(self, schema: pa.Schema, ids: pa.Array, rows: npt.NDArray[Any]) -> pa.RecordBatch:
        """Return ``rows`` [*, dim] and their ids as a batch of ``schema``."""
        flat = pa.array(np.ascontiguousarray(rows, np.float32).reshape(-1))
        vector = schema.field(self.columns.vector).type
        if self.fixed_size:
            column = pa.FixedSizeListArray.from_arrays(flat, type=vector)
        else:
            ends = np.arange(rows.shape[0] + 1, dtype=np.int32) * np.int32(rows.shape[1])
            column = pa.ListArray.from_arrays(pa.array(ends), flat, type=vector)
        times = {self.columns.event_time: self.event_time, self.columns.created: self.created}
        repeated = [pa.repeat(pa.scalar(time, _TIME), rows.shape[0]) for name, time in times.items() if name]
        return pa.record_batch([ids.cast(schema.field(0).type), column, *repeated], schema=schema)


def parse_time(text: str, option: str) -> datetime:
    """Return an ISO 8601 date or time in UTC; one without an offset is taken as UTC.

    Raises:
        ConfigError: It is none.
    """
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{option} is '{text}'; write a time such as 2026-01-31T12:00:00Z") from error


def export_parquet(
    path: Path,
    vectors: FlatArray,
    ids: IdColumn,
    *,
    shape: ParquetShape,
    metadata: Mapping[str, str],
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> None:
    """Write a column of ids (int64 or string), one of vectors (lists of float32) and two of times.

    Args:
        vectors: [N, dim] float32 or float16.
        metadata: Texts that the file's schema carries.

    Raises:
        CorruptError: A chunk of vectors is not as it was written; ``path`` is as it was.
        DiskError: ``path`` exists, or the system refused; ``path`` is as it was.
    """
    _refuse_existing([path], overwrite)
    schema = shape.schema(ids, vectors.shape[1], metadata)
    group_rows = min(_MOST_GROUP_ROWS, max(1, _ROW_GROUP_BYTES // vectors.spec.row_nbytes))
    with (
        task(progress, f"export {path.name}", ids.num_rows, "rows") as work,
        atomic_file(path) as file,
        pq.ParquetWriter(file, schema) as writer,
    ):
        for first, rows in vectors.checked_blocks(group_rows):
            writer.write_batch(shape.group(schema, ids.block(first, first + rows.shape[0]), rows))
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
