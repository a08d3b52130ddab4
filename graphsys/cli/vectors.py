"""Commands about embedding tables: lookup and export."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from graphsys.cli.options import Json, Overwrite, Quiet
from graphsys.cli.output import reporting
from graphsys.core.errors import ConfigError, NodeIdError

_Table = Annotated[Path, typer.Argument(metavar="TABLE", help="Embedding table.", show_default=False)]
_Column = Annotated[str, typer.Option(metavar="NAME", help="Parquet: name of this column.")]
_Time = Annotated[str, typer.Option(metavar="NAME", help="Parquet: name of this column; '' leaves it out.")]


def lookup(
    table: _Table,
    ids: Annotated[list[str], typer.Option("--id", help="External id; may be repeated.", show_default=False)],
    k: Annotated[int, typer.Option("--k", help="Nearest neighbours to name.", min=1)] = 5,
    metric: Annotated[Literal["cosine", "dot", "l2"], typer.Option(help="How near is measured.")] = "cosine",
    vector: Annotated[bool, typer.Option("--vector", help="Show the vectors themselves.")] = False,
    as_json: Json = False,
) -> None:
    """Answer vectors and exact nearest neighbours by external id."""
    from graphsys.cli.data_tables import lookup_table
    from graphsys.deploy.lookup import neighbours
    from graphsys.storage.embeddings import EmbeddingTable

    with reporting(as_json=as_json, quiet=True) as output:
        opened = EmbeddingTable.open(table)
        vectors, found = opened.lookup(ids)
        unknown = [value for value, hit in zip(ids, found, strict=True) if not hit]
        if unknown:
            kind = "string" if opened.id_kind == "string" else "integer"
            raise NodeIdError(
                f"{table} has no node '{unknown[0]}'; it holds {opened.num_rows:,} nodes of type "
                f"'{opened.node_type}', with {kind} ids"
            )
        near = neighbours(opened, ids, k, metric=metric)
        answers = [
            {
                "id": value,
                "vector": vectors[index].astype(float).tolist(),
                "neighbours": near[index].as_dict(),
            }
            for index, value in enumerate(ids)
        ]
        values = {"table": table, "version": opened.version, "dim": opened.dim, "metric": metric, "answers": answers}
        output.result(values, lookup_table(values, vector=vector))


def export(
    table: _Table,
    to: Annotated[Literal["parquet", "npy"], typer.Option(help="File format.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="File to write.", show_default=False)],
    id_column: _Column = "id",
    vector_column: _Column = "embedding",
    event_column: _Time = "event_timestamp",
    created_column: _Time = "created",
    event_time: Annotated[
        str | None,
        typer.Option(help="ISO 8601 time from which the vectors hold; when the table was made, if it is not given."),
    ] = None,
    fixed_size: Annotated[
        bool, typer.Option("--fixed-size", help="Parquet: vectors as lists of fixed size, which Feast does not read.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write an embedding table as Parquet that feature stores load (id, embedding, times), or as .npy.

    Beside NAME.npy, NAME.ids.npy holds the id of every row; it is left out where row 0 is id 0, row 1 id 1, and so on.
    """
    from graphsys.storage.embeddings import EmbeddingTable
    from graphsys.storage.export import ParquetColumns, ParquetShape, parse_time

    with reporting(as_json=as_json, quiet=quiet) as output:
        columns = ParquetColumns(id=id_column, vector=vector_column, event_time=event_column, created=created_column)
        if to == "npy" and (columns != ParquetColumns() or event_time is not None or fixed_size):
            raise ConfigError("a .npy file has no columns and no times; leave those options out, or use --to parquet")
        since = None if event_time is None else parse_time(event_time, "--event-time")
        opened = EmbeddingTable.open(table)
        values: dict[str, Any] = {"path": out, "ids_path": None, "num_rows": opened.num_rows, "dim": opened.dim}
        ids: Path | None = None
        if to == "parquet":
            shape = ParquetShape(
                columns=columns, event_time=since or opened.made_at, created=datetime.now(UTC), fixed_size=fixed_size
            )
            values["event_time"] = shape.event_time.isoformat()
            opened.export_parquet(out, shape=shape, overwrite=overwrite, progress=output.progress)
        else:
            ids = opened.export_npy(out, overwrite=overwrite, progress=output.progress)
        values["ids_path"] = ids
        beside = f", ids in {ids}" if ids else ""
        output.result(values, f"{out}: {opened.num_rows:,} vectors of {opened.dim} numbers{beside}")
