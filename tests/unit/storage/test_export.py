"""A Parquet export is what feature stores load: keys, vectors, and the times that joins need."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.tables import CHECKPOINT, make_table

from graphsys.core.errors import ConfigError
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.export import ParquetColumns, ParquetShape, parse_time

DAY = datetime(2026, 3, 1, tzinfo=UTC)
# The types that Feast's file source maps to INT64, STRING, FLOAT_LIST and UNIX_TIMESTAMP.
INTEGERS, TEXTS = pa.int64(), pa.string()
TIME = pa.timestamp("us", "UTC")


def vectors(add: float = 0) -> npt.NDArray[np.float32]:
    """Row i holds i + add and i + add + 1/2."""
    return np.array([[row + add, row + add + 0.5] for row in range(9)], np.float32)


def shape(event_time: datetime = DAY, *, fixed_size: bool = False) -> ParquetShape:
    return ParquetShape(event_time=event_time, created=DAY + timedelta(days=30), fixed_size=fixed_size)


@pytest.mark.parametrize(("ids", "kind"), [(None, INTEGERS), ([f"a{row}" for row in range(9)], TEXTS)])
def test_the_columns_have_the_types_that_feature_stores_infer(
    tmp_path: Path, ids: list[str] | None, kind: pa.DataType
) -> None:
    make_table(tmp_path, vectors(), ids=ids).export_parquet(tmp_path / "t.parquet")
    schema = pq.read_schema(tmp_path / "t.parquet")
    assert schema.names == ["id", "embedding", "event_timestamp", "created"]
    assert schema.field("id").type == kind
    assert str(schema.field("embedding").type) == "list<element: float>"
    assert (schema.field("event_timestamp").type, schema.field("created").type) == (TIME, TIME)


def test_a_point_in_time_join_takes_the_vectors_of_that_time(tmp_path: Path) -> None:
    for day in (0, 1, 2):
        table = make_table(tmp_path, vectors(100 * day), overwrite=day > 0)
        table.export_parquet(tmp_path / f"day{day}.parquet", shape=shape(DAY + timedelta(days=day)))
    asked = [(3, "2026-02-27 00:00"), (3, "2026-03-01 12:00"), (8, "2026-03-03 00:00"), (77, "2026-03-09 00:00")]
    with duckdb.connect() as database:
        database.execute("CREATE TABLE asked (id BIGINT, moment TIMESTAMPTZ)")
        database.executemany("INSERT INTO asked VALUES (?, CAST(? || '+00' AS TIMESTAMPTZ))", asked)
        found = database.execute(
            "SELECT asked.id, embedding FROM asked ASOF LEFT JOIN read_parquet(?) AS feature"
            " ON asked.id = feature.id AND feature.event_timestamp <= asked.moment ORDER BY asked.moment",
            [str(tmp_path / "day*.parquet")],
        ).fetchall()
    assert found == [(3, None), (3, [3, 3.5]), (8, [208, 208.5]), (77, None)]


def test_of_rows_with_one_time_a_database_can_tell_the_newest(tmp_path: Path) -> None:
    table = make_table(tmp_path, vectors())
    for name, days in (("a", 0), ("b", 5)):
        made = ParquetShape(event_time=DAY, created=DAY + timedelta(days=days))
        table.export_parquet(tmp_path / f"{name}.parquet", shape=made)
    with duckdb.connect() as database:
        found = database.execute(
            "SELECT max_by(filename, created) FROM read_parquet(?, filename=true) GROUP BY id, event_timestamp",
            [str(tmp_path / "?.parquet")],
        ).fetchall()
    assert found == [(str(tmp_path / "b.parquet"),)] * 9


def test_the_vectors_hold_since_the_table_was_made(tmp_path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    table = make_table(tmp_path, vectors())
    table.export_parquet(tmp_path / "t.parquet")
    row = pq.read_table(tmp_path / "t.parquet").slice(0, 1).to_pylist()[0]
    assert before < row["event_timestamp"] <= row["created"] <= datetime.now(UTC)


def test_columns_take_other_names_and_times_can_be_left_out(tmp_path: Path) -> None:
    columns = ParquetColumns(id="paper", vector="v", event_time="at", created="")
    made = ParquetShape(columns=columns, event_time=DAY, created=DAY, fixed_size=True)
    make_table(tmp_path, vectors()).export_parquet(tmp_path / "t.parquet", shape=made)
    read = pq.read_table(tmp_path / "t.parquet")
    assert read.column_names == ["paper", "v", "at"]
    assert read["v"].type.list_size == 2
    assert read["at"].unique().to_pylist() == [DAY]


def test_the_file_says_what_it_was_made_from(tmp_path: Path) -> None:
    table = make_table(tmp_path, vectors())
    table.export_parquet(tmp_path / "t.parquet")
    found = {key.decode(): value.decode() for key, value in pq.read_schema(tmp_path / "t.parquet").metadata.items()}
    assert found["graphsys.version"] == table.version
    assert found["graphsys.fingerprint"] == EmbeddingTable.open(table.path).fingerprint
    assert (found["graphsys.checkpoint"], found["graphsys.dim"]) == (CHECKPOINT, "2")


def test_equal_names_and_missing_ones_are_refused() -> None:
    with pytest.raises(ConfigError, match="two columns of the export are called 'id'"):
        ParquetColumns(vector="id")
    with pytest.raises(ConfigError, match="need a name"):
        ParquetColumns(id="")


@pytest.mark.parametrize(
    ("text", "hour"), [("2026-03-01", 0), ("2026-03-01T05:00", 5), ("2026-03-01T05:00:00+02:00", 3)]
)
def test_a_time_is_read_in_utc(text: str, hour: int) -> None:
    assert parse_time(text, "--event-time") == DAY + timedelta(hours=hour)


@pytest.mark.parametrize("text", ["yesterday", "", "2026-13-01", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--event-time is '.*'; write a time such as"):
        parse_time(text, "--event-time")
