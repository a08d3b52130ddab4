"""Parquet and CSV files as one table that is read by batches of a few megabytes."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from graphsys.core.errors import InputError
from graphsys.storage.checks import printable, short_reason
from graphsys.storage.files import disk_errors
from graphsys.storage.sources import CSV_READING_BYTES, rows_per_chunk

_PARQUET = (".parquet", ".pq")
_CSV = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
TABLE_SUFFIXES = (*_PARQUET, *_CSV)
_CSV_BLOCK = 1 << 20  # bytes of text; a line must fit into one
_WIDE_LINE = 16 << 20  # block of files whose lines are longer
_BUFFER = 256 << 10  # of a Parquet column being read
_PAGES = 3 << 20  # of a Parquet column being read: a page as stored, decoded, and the dictionary; writers keep to 1 MiB
_SAMPLE_ROWS = 64
_NUMBER = 8  # bytes of a number once it is on its way into a store
_CSV_VALUE = re.compile(r"CSV column #(\d+): CSV conversion error to (\w+): invalid value '(.*)'")


def is_table(path: Path) -> bool:
    """Whether the name is that of a Parquet or CSV file."""
    return path.name.lower().endswith(TABLE_SUFFIXES)


def table_files(path: Path) -> tuple[Path, ...]:
    """Return ``path`` itself, or the table files of a folder by name.

    Raises:
        InputError: There are none, or the name is not that of a table.
        DiskError: The system refused.
    """
    with disk_errors("read", path):
        path.stat()
        found = tuple(sorted(file for file in path.iterdir() if is_table(file))) if path.is_dir() else (path,)
    if not found:
        raise InputError(f"{path} holds no table; expected files ending in {', '.join(TABLE_SUFFIXES)}")
    if not is_table(found[0]):
        raise InputError(f"{path} is not a table; expected a name ending in {', '.join(TABLE_SUFFIXES)}")
    return found


@contextmanager
def table_errors(path: Path, names: Sequence[str] = ()) -> Iterator[None]:
    """Turn what an unreadable table raises into one sentence about ``path``.

    Args:
        names: Columns of the file, where they are known.

    Raises:
        InputError: The file is damaged or of another kind.
        DiskError: The system refused.
    """
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            with disk_errors("read", path):
                raise
        # Arrow raises an OSError without a number for a damaged page.
        reason = short_reason(error)
        value = _CSV_VALUE.search(reason)
        if value is not None and int(value[1]) < len(names):
            name = printable(names[int(value[1])])
            raise InputError(
                f"{path}: column '{name}' holds '{value[3]}' where {value[2]} is expected; correct the value, or name "
                f"another column"
            ) from error
        raise InputError(
            f"{path} cannot be read: {reason}; check that it is whole and of the kind it is named"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Files with the same columns, one after the other."""

    files: tuple[Path, ...]
    names: tuple[str, ...]  # columns of the first file
    types: dict[str, Any]  # column -> pyarrow type, in the first file

    @property
    def shown(self) -> str:
        """How messages name the table."""
        return self.files[0].name if len(self.files) == 1 else f"{self.files[0].parent.name}/"

    @property
    def num_rows(self) -> int | None:
        """Number of rows, None where only reading tells."""
        if not all(_is_parquet(path) for path in self.files):
            return None
        return sum(_parquet_rows(path) for path in self.files)

    def reading_bytes(self, columns: Sequence[str]) -> int:
        """Return about how many bytes reading ``columns`` takes, beside the batches."""
        return max(_parquet_bytes(path, columns) if _is_parquet(path) else CSV_READING_BYTES for path in self.files)

    def need(self, name: str, role: str) -> str:
        """Return ``name``.

        Raises:
            InputError: There is no such column; the message lists those found.
        """
        if name not in self.names:
            raise InputError(f"{self.shown} has no column '{name}' for {role}; it has {_listed(self.names)}")
        return name

    def expand(self, patterns: Sequence[str], role: str) -> tuple[str, ...]:
        """Return the columns that names and patterns such as ``f*`` stand for, in the order given, then file order."""
        found: dict[str, None] = {}
        for pattern in patterns:
            matches = [name for name in self.names if fnmatchcase(name, pattern)] if "*" in pattern else []
            found |= dict.fromkeys(matches or [self.need(pattern, role)])
        return tuple(found)

    def batches(self, columns: Sequence[str], types: dict[str, Any] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the rows of ``columns`` in batches of about 2 MiB.

        Args:
            types: pyarrow types that CSV columns are parsed as; others are found out from the first block.

        Raises:
            InputError: A file is damaged or lacks a column.
            DiskError: The system refused.
        """
        for path in self.files:
            with table_errors(path, self.names):
                for batch in _batches(path, list(columns), types or {}):
                    if batch.num_rows:
                        yield batch


def open_table(files: tuple[Path, ...]) -> Table:
    """Return the table that ``files`` make up; only the first one's columns are looked at.

    Raises:
        InputError: It is empty, damaged or has a column twice.
        DiskError: The system refused.
    """
    path = files[0]
    with disk_errors("read", path):
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty; expected a table with a header")
    with table_errors(path):
        schema = pq.read_schema(path) if _is_parquet(path) else _open_csv(path, {}, None).schema
        names = tuple(schema.names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has the column '{printable(twice)}' twice; rename one")
    return Table(files=files, names=names, types=dict(zip(names, schema.types, strict=True)))


def _listed(names: Sequence[str]) -> str:
    return printable(", ".join(names))


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(_PARQUET)


def _parquet_rows(path: Path) -> int:
    with table_errors(path):
        return int(pq.read_metadata(path).num_rows)


def _parquet_bytes(path: Path, columns: Sequence[str]) -> int:
    with table_errors(path):
        metadata = pq.read_metadata(path)
    wanted = [index for index, name in enumerate(_leaf_columns(metadata)) if name in columns]
    groups = range(metadata.num_row_groups)
    return sum(
        _BUFFER
        + min(_PAGES, max((metadata.row_group(g).column(leaf).total_uncompressed_size for g in groups), default=0))
        for leaf in wanted
    )


def _leaf_columns(metadata: Any) -> list[str]:
    """Return the top column of every leaf of a Parquet file."""
    return [metadata.schema.column(index).path.partition(".")[0] for index in range(metadata.num_columns)]


def _batches(path: Path, columns: list[str], types: dict[str, Any]) -> Iterator[pa.RecordBatch]:
    if _is_parquet(path):
        # Columns are read through small buffers: whole column chunks of large row groups would not fit the budget.
        with pq.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
            _need_all(path, file.schema_arrow.names, columns)
            rows = rows_per_chunk(_row_nbytes(file, columns))
            yield from file.iter_batches(batch_size=rows, columns=columns)
        return
    for batch in _open_csv(path, types, columns):
        rows = rows_per_chunk(sum(map(_plain_nbytes, batch.columns)) // max(batch.num_rows, 1))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def _need_all(path: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    for name in columns:
        if name not in names:
            raise InputError(f"{path} has no column '{name}', unlike the files before it; it has {_listed(names)}")


def _row_nbytes(file: Any, columns: list[str]) -> int:
    """Return about how many bytes a row takes in memory; the first rows of a file tell what its types do not."""
    first = next(file.iter_batches(batch_size=_SAMPLE_ROWS, columns=columns), None)
    return 0 if first is None else -(-sum(map(_plain_nbytes, first.columns)) // max(first.num_rows, 1))


def _plain_nbytes(column: Any) -> int:
    """Return the bytes of a column as an array of eight-byte numbers, or as plain strings."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain_nbytes(column.dictionary_decode())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _plain_nbytes(column.flatten())
    fixed = pa.types.is_primitive(kind)
    return _NUMBER * len(column) if fixed else int(column.nbytes)


def _open_csv(path: Path, types: dict[str, Any], columns: list[str] | None) -> Any:
    tab = path.name.lower().endswith((".tsv", ".tsv.gz"))

    def open_with(block: int) -> Any:
        return pa_csv.open_csv(
            path,
            read_options=pa_csv.ReadOptions(block_size=block),
            parse_options=pa_csv.ParseOptions(delimiter="\t" if tab else ",", newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types=types, include_columns=columns),
        )

    try:
        return open_with(_CSV_BLOCK)
    except pa.ArrowInvalid as error:
        if "straddling" not in str(error):
            raise
        return open_with(_WIDE_LINE)
