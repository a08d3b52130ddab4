"""Columns of a raw table that lie in files of their own, read side by side in runs of equal length."""

import csv
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from graphsys.core.errors import InputError
from graphsys.core.types import Array
from graphsys.storage.array_files import ArrayFile
from graphsys.storage.files import disk_errors
from graphsys.storage.sources import rows_per_chunk

_CSV_BLOCK = 1 << 20  # bytes of text


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One or more values per row, read from front to back in blocks of any length."""

    path: Path  # named in messages
    row_nbytes: int
    blocks: Callable[[], Iterator[Array]]  # [*] or [*, K]; starts at the first row on every call


def side_by_side(
    columns: Mapping[str, Column | None], num_rows: int, *, counted_in: Path
) -> Iterator[tuple[slice, dict[str, Array]]]:
    """Yield (rows, their values by column name) from the first row to the last; a column that is None has no entry.

    Raises:
        InputError: A column has not exactly ``num_rows`` rows.
    """
    readers = {name: _Reader(column, num_rows, counted_in) for name, column in columns.items() if column is not None}
    rows = rows_per_chunk(sum(column.row_nbytes for column in columns.values() if column is not None))
    for start in range(0, num_rows, rows):
        run = slice(start, min(start + rows, num_rows))
        yield run, {name: reader.take(run.stop - run.start) for name, reader in readers.items()}
    for reader in readers.values():
        reader.finish()


class _Reader:
    """Hands out runs of the wanted length from a column's blocks."""

    def __init__(self, column: Column, num_rows: int, counted_in: Path) -> None:
        self._path = column.path
        self._blocks = column.blocks()
        self._rest: Array | None = None
        self._wanted, self._counted_in = num_rows, counted_in
        self._found = 0

    def take(self, count: int) -> Array:
        parts = [] if self._rest is None else [self._rest]
        held = sum(part.shape[0] for part in parts)
        while held < count:
            block = next(self._blocks, None)
            if block is None:
                raise self._mismatch(str(self._found))
            self._found += block.shape[0]
            held += block.shape[0]
            parts.append(block)
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        self._rest = joined[count:]
        return joined[:count]

    def finish(self) -> None:
        more = self._rest is not None and self._rest.shape[0] > 0
        if more or any(block.shape[0] for block in self._blocks):
            raise self._mismatch("more")

    def _mismatch(self, found: str) -> InputError:
        return InputError(
            f"{self._path} holds {found} rows, but {self._counted_in} says {self._wanted}; "
            f"one of the two is truncated or belongs to another graph"
        )


def csv_column(path: Path, dtype: type[np.generic]) -> Column:
    """Open a CSV file without a header, gzipped or not, whose fields are all numbers.

    Args:
        dtype: int64, in which every field must be given, or a float type, in which missing fields become NaN.
    """
    with _csv_errors(path):
        width = len(_open_csv(path, {}).schema)
    names = [f"f{index}" for index in range(width)]
    types = {name: pa.from_numpy_dtype(dtype) for name in names}

    def blocks() -> Iterator[Array]:
        with _csv_errors(path):
            for batch in _open_csv(path, types):
                yield _dense(batch, path)

    return Column(path=path, row_nbytes=width * np.dtype(dtype).itemsize, blocks=blocks)


def csv_texts(path: Path, width: int) -> list[list[str]]:
    """Return the rows of a short CSV file without a header, each of ``width`` fields.

    Raises:
        InputError: A row has more or fewer fields, or the file is damaged.
    """
    with _csv_errors(path), _open_text(path) as file:
        rows = [row for row in csv.reader(file) if row]
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise InputError(f"{path}: row {number} has {len(row)} fields; {width} are expected")
    return rows


def csv_named_counts(path: Path) -> dict[str, int]:
    """Return what a CSV file of two rows says: names, then one whole number for each.

    Raises:
        InputError: It is not such a file.
    """
    with _csv_errors(path), _open_text(path) as file:
        rows = [row for row in csv.reader(file) if row]
    if len(rows) != 2 or len(rows[0]) != len(rows[1]) or not all(value.isdecimal() for value in rows[1]):
        raise InputError(f"{path} is not a row of names over a row of as many counts; download it again")
    return {name: int(value) for name, value in zip(*rows, strict=True)}


def _open_text(path: Path) -> TextIO:
    with disk_errors("read", path):
        path.stat()
    return gzip.open(path, "rt", encoding="utf-8", newline="")


def _open_csv(path: Path, types: dict[str, Any]) -> Any:
    with disk_errors("read", path):
        path.stat()
    return pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(autogenerate_column_names=True, block_size=_CSV_BLOCK),
        convert_options=pa_csv.ConvertOptions(column_types=types),
    )


def _dense(batch: pa.RecordBatch, path: Path) -> Array:
    for index, column in enumerate(batch.columns):
        if column.null_count and pa.types.is_integer(column.type):
            raise InputError(f"{path}: column {index} has a missing value where a whole number is expected")
    arrays = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
    return arrays[0] if len(arrays) == 1 else np.column_stack(arrays)


@contextmanager
def _csv_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        # A damaged gzip stream is an OSError without a number in Arrow, and one of several errors in Python.
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be read as numbers: {reason}; check the file or download it again") from error


def array_column(array: ArrayFile) -> Column:
    """Return an array [N] or [N, ...] on disk as a column."""
    rows = rows_per_chunk(array.row_nbytes)

    def blocks() -> Iterator[Array]:
        with array.cursor() as cursor:
            for start in range(0, array.num_rows, rows):
                yield cursor.take(min(rows, array.num_rows - start))

    return Column(path=array.path, row_nbytes=array.row_nbytes, blocks=blocks)
