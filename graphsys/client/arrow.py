"""Ids and vectors as Arrow, both ways."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from graphsys.client.errors import UnreachableError
from graphsys.client.results import Lookup, Neighbours, Predicted

VERSION_KEY = "graphsys.version"  # of a schema's metadata
SEARCH_KEY = "graphsys.search"
CLASSES_KEY = "graphsys.classes"

Ids = Sequence[int | str] | npt.NDArray[Any]


def id_column(ids: Ids) -> Any:
    """Return ids as an Arrow array of int64 or text, or None where they are both, or too large."""
    try:
        column = pa.array(ids)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return None
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        return column.cast(pa.int64())
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return column
    return None


def ids_stream(column: Any, version: str | None) -> bytes:
    """Return the body of a request about nodes by id."""
    return _stream("id", column, None if version is None else {VERSION_KEY: version})


def search_stream(vectors: npt.NDArray[np.float32], options: Mapping[str, Any]) -> bytes:
    """Return a search's body; the server takes what JSON has beside the vectors from the schema's metadata."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return _stream("vector", column, {SEARCH_KEY: json.dumps(dict(options))})


def _stream(name: str, column: Any, metadata: dict[str, str] | None) -> bytes:
    schema = pa.schema([(name, column.type)], metadata=metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch([column], schema=schema))
    body: bytes = sink.getvalue().to_pybytes()
    return body


def read_lookup(body: bytes) -> Lookup:
    """Return what a look-up's reply says."""
    return as_lookup(_table(body))


def read_neighbours(body: bytes) -> Neighbours:
    """Return what the reply to a search for vectors says: rows of ``query``, ``id`` and ``score``, by query."""
    table = _table(body)
    told = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    query = table.column("query").to_numpy()
    num_found = np.bincount(query, minlength=int(told["graphsys.num_queries"]))
    rank = np.arange(query.shape[0]) - np.repeat(np.cumsum(num_found) - num_found, num_found)
    ids = table.column("id").to_numpy()
    shape = (num_found.shape[0], int(num_found.max(initial=0)))
    names = np.zeros(shape, np.int64) if ids.dtype == np.int64 else np.full(shape, "", np.object_)
    scores = np.full(shape, np.nan, np.float32)
    names[query, rank], scores[query, rank] = ids, table.column("score").to_numpy()
    return Neighbours(
        version=version_of(table.schema),
        metric=told["graphsys.metric"],
        found=np.ones(shape[0], np.bool_),
        num_found=num_found,
        ids=names,
        scores=scores,
    )


def read_predicted(body: bytes) -> Predicted:
    """Return what the reply to a question for predictions says."""
    table = _table(body)
    found, rows = _found_rows(table, "probabilities")
    classes = tuple(json.loads((table.schema.metadata or {}).get(CLASSES_KEY.encode(), b"[]")))
    return Predicted(version=version_of(table.schema), found=found, probabilities=rows, classes=classes)


def _table(body: bytes) -> Any:
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            return reader.read_all()
    except (pa.ArrowException, OSError) as error:
        raise UnreachableError("the answer is not a whole Arrow stream; ask again") from error


def as_lookup(table: Any) -> Lookup:
    """Return columns ``id``, ``found`` and ``vector`` as arrays."""
    found, vectors = _found_rows(table, "vector")
    return Lookup(version=version_of(table.schema), found=found, vectors=vectors)


def _found_rows(table: Any, name: str) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    found = table.column("found").combine_chunks().to_numpy(zero_copy_only=False).astype(np.bool_, copy=False)
    return found, _vectors(table.column(name), found)


def version_of(schema: Any) -> str:
    """Return the table's version that a schema names."""
    version: str = (schema.metadata or {}).get(VERSION_KEY.encode(), b"").decode()
    return version


def _vectors(column: Any, found: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    parts = [rows_of(chunk) for chunk in column.chunks]
    vectors = np.concatenate(parts) if len(parts) != 1 else parts[0]
    if found.all():
        return vectors
    cleared = np.array(vectors, np.float32)
    cleared[~found] = 0
    return cleared


def rows_of(vectors: Any) -> npt.NDArray[Any]:
    """Return an Arrow array of lists of fixed size as [N, dim] in its own memory; null rows hold anything."""
    size: int = vectors.type.list_size
    flat = vectors.values.slice(vectors.offset * size, len(vectors) * size)
    rows: npt.NDArray[Any] = flat.to_numpy(zero_copy_only=True).reshape(len(vectors), size)
    return rows
