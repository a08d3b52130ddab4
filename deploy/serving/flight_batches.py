"""What travels over Arrow Flight: tickets, schemas, and batches of a table in the memory of its files."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.served_table import ServedTable
from graphsys.deploy.serving.vector_columns import vector_column
from graphsys.deploy.serving.wire import VERSION_KEY

BATCH_BYTES = 4 << 20  # of vectors; measured in benchmarks/serving_flight.py
MOST_STREAMS = 64  # that one table is cut into


class Plan(BaseModel):
    """A descriptor's command: which table is wanted, and over how many streams."""

    model_config = ConfigDict(extra="forbid", strict=True)

    table: str | None = Field(None, description="Version; the active one when left out.")
    streams: int = Field(1, ge=1, le=MOST_STREAMS)


class Slice(BaseModel):
    """A ticket: rows [start, stop) of a table, in the order of its rows."""

    model_config = ConfigDict(extra="forbid", strict=True)

    table: str | None = Field(None, description="Version; the active one when left out.")
    start: int = Field(0, ge=0)
    stop: int | None = Field(None, ge=0, description="The end of the table when left out.")

    def bounds(self, num_rows: int) -> tuple[int, int]:
        """Return first row and end.

        Raises:
            Problem: 422, they are not rows of a table with ``num_rows``.
        """
        stop = num_rows if self.stop is None else self.stop
        if not self.start <= stop <= num_rows:
            raise Problem(422, f"rows {self.start:,} to {stop:,} are not rows of a table with {num_rows:,} rows")
        return self.start, stop


def cut(table: ServedTable, streams: int) -> list[Slice]:
    """Return at most ``streams`` slices of a table, of whole batches, as even as may be."""
    step = batch_rows(table)
    batches = -(-table.num_rows // step)
    ends = [batches * part // streams * step for part in range(streams + 1)]
    slices = [
        Slice(table=table.version, start=start, stop=min(stop, table.num_rows))
        for start, stop in pairwise(ends)
        if start < stop
    ]
    return slices or [Slice(table=table.version)]


def batch_rows(table: ServedTable) -> int:
    """Return the rows of one batch."""
    row_bytes: int = table.vectors.dtype.itemsize * table.dim
    return max(1, BATCH_BYTES // row_bytes)


def table_schema(table: ServedTable) -> Any:
    """Return the schema of a table's slices: ``id`` and ``vector``, in the types the table has them in."""
    vector = pa.list_(pa.from_numpy_dtype(table.vectors.dtype), table.dim)
    return pa.schema([("id", table.table.ids.arrow_type), ("vector", vector)], metadata={VERSION_KEY: table.version})


def slice_batches(table: ServedTable, start: int, stop: int) -> Iterator[Any]:
    """Yield rows [start, stop) of a table, whose vectors are not copied."""
    ids, schema, step = table.table.ids, table_schema(table), batch_rows(table)
    rows = table.table.vectors.memmap(sequential=True)
    for first in range(start, stop, step):
        end = min(first + step, stop)
        yield pa.record_batch([ids.column(first, end), vector_column(rows[first:end])], schema=schema)


def lookup_schema(table: ServedTable, id_type: Any) -> Any:
    """Return the schema of answers to look-ups: ``id`` as it was asked for, ``found`` and ``vector``."""
    fields = [("id", id_type), ("found", pa.bool_()), ("vector", pa.list_(pa.float32(), table.dim))]
    return pa.schema(fields, metadata={VERSION_KEY: table.version})


def lookup_batch(table: ServedTable, ids: Any, schema: Any) -> Any:
    """Return the answer to one batch of ids; a vector is null where the id is unknown."""
    vectors, found = table.lookup(ids)
    return pa.record_batch([ids, pa.array(found), vector_column(vectors, found)], schema=schema)
