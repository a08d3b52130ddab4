"""Table columns -> ids, numbers, matrices, labels and splits, or one sentence about the row that does not fit."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from graphsys.core.errors import InputError
from graphsys.core.types import SPLITS, Array
from graphsys.storage.checks import printable
from graphsys.storage.sources import ExternalIds

Where = Callable[[int], str]  # row of the batch -> how a message names it, such as "nodes.csv row 17"

_SPLIT_WORDS = {"": 0, "none": 0, "train": 1, "val": 2, "valid": 2, "validation": 2, "test": 3}


def refuse_nulls(column: Any, name: str, where: Where) -> None:
    """Raise InputError at the first missing value of a column, by name and row."""
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        raise InputError(f"column '{name}' of {where(row)} is missing (null or NaN); fill it in, or remove the row")


def as_ids(column: Any, name: str, where: Where) -> ExternalIds:
    """Return ids [C] as int64 or large strings.

    Raises:
        InputError: One is missing or empty, or they are neither whole numbers nor strings.
    """
    refuse_nulls(column, name, where)
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if pa.types.is_integer(plain.type):
        try:
            return plain.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(
                f"column '{name}' near {where(0)} holds an id beyond 64 bits with sign: {error}"
            ) from error
    if pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type):
        empty = np.flatnonzero(pc.equal(pc.binary_length(plain), 0).to_numpy(zero_copy_only=False))
        if empty.size:
            raise InputError(f"column '{name}' of {where(int(empty[0]))} is empty; expected an id")
        return plain.cast(pa.large_string())
    raise InputError(f"column '{name}' holds {column.type}; expected ids that are whole numbers or strings")


def as_times(column: Any, name: str, where: Where) -> Array:
    """Return times [C]: whole numbers as they are, dates and times as counts of their own unit."""
    refuse_nulls(column, name, where)
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        return as_numbers(column.cast(pa.int64()), name, where)
    if pa.types.is_date32(kind):
        return as_numbers(column.cast(pa.int32()), name, where)
    return as_numbers(column, name, where)


def as_numbers(column: Any, name: str, where: Where) -> Array:
    """Return numbers [C].

    Raises:
        InputError: One is missing, or they are no numbers.
    """
    refuse_nulls(column, name, where)
    kind = column.type
    if pa.types.is_decimal(kind):
        return as_numbers(column.cast(pa.float64()), name, where)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise InputError(f"column '{name}' near {where(0)} holds {kind}; expected numbers")
    numbers: Array = column.to_numpy(zero_copy_only=False)
    return numbers


def is_list(kind: Any) -> bool:
    """Whether a pyarrow type is a list of any sort."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def as_matrix(batch: pa.RecordBatch, names: Sequence[str], where: Where) -> Array:
    """Return [C, D]: several columns of numbers side by side, or one column of lists of equal length.

    Raises:
        InputError: A value is missing or no number, or lists differ in length.
    """
    columns = [batch.column(name) for name in names]
    if len(columns) == 1 and is_list(columns[0].type):
        return list_matrix(columns[0], names[0], where)
    arrays = [as_numbers(column, name, where) for column, name in zip(columns, names, strict=True)]
    wide = all(array.dtype.itemsize <= 4 and array.dtype.kind == "f" for array in arrays)
    matrix = np.empty((batch.num_rows, len(arrays)), np.float32 if wide else np.float64)
    for place, array in enumerate(arrays):
        matrix[:, place] = array
    return matrix


def list_matrix(column: Any, name: str, where: Where) -> Array:
    """Return a column of lists of equal length as [C, D]."""
    refuse_nulls(column, name, where)
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    width = int(lengths[0]) if lengths.size else 0
    other = np.flatnonzero(lengths != width)
    if other.size:
        row = int(other[0])
        raise InputError(f"column '{name}' of {where(row)} holds {lengths[row]} values where row one holds {width}")

    def place(flat: int) -> str:
        return f"{where(flat // max(width, 1))}, position {flat % max(width, 1)}"

    return as_numbers(column.flatten(), name, place).reshape(len(column), width)


def as_labels(column: Any, name: str, where: Where, classes: tuple[str, ...]) -> Array:
    """Return labels [C] or [C, K]; a missing one is -1 or NaN.

    Args:
        classes: Names of the classes in order, for columns of strings.
    """
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    kind = plain.type
    if is_list(kind):
        return list_matrix(plain, name, where)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        found = pc.index_in(plain.cast(pa.large_string()), pa.array(classes, pa.large_string()))
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), np.int64)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return as_numbers(pc.fill_null(plain.cast(pa.int64()), -1), name, where)
    if pa.types.is_floating(kind):
        return as_numbers(pc.fill_null(plain, np.nan), name, where)
    return as_numbers(plain, name, where)


def as_split(column: Any, name: str, where: Where) -> npt.NDArray[np.uint8]:
    """Return split codes [C]: 0 none, 1 train, 2 val, 3 test, from such codes or from words; missing is none.

    Raises:
        InputError: A word or code is unknown.
    """
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    if pa.types.is_integer(plain.type):
        codes = pc.fill_null(plain.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero((codes < 0) | (codes > 3))
    elif pa.types.is_string(plain.type) or pa.types.is_large_string(plain.type):
        words = pc.utf8_lower(pc.utf8_trim_whitespace(pc.fill_null(plain, "")))
        distinct = words.unique().to_pylist()
        table = np.array([_SPLIT_WORDS.get(word, -1) for word in distinct], np.int64)
        codes = table[pc.index_in(words, pa.array(distinct, words.type)).to_numpy(zero_copy_only=False)]
        wrong = np.flatnonzero(codes < 0)
    else:
        raise InputError(f"column '{name}' holds {column.type}; expected {', '.join(SPLITS)}, or codes 0 to 3")
    if wrong.size:
        row = int(wrong[0])
        found = printable(str(plain[row].as_py()))
        raise InputError(f"column '{name}' of {where(row)} is '{found}'; expected {', '.join(SPLITS)} or 0 to 3")
    return np.asarray(codes, np.uint8)
