"""Raw graphs in Parquet and CSV tables, whose columns the user names."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from graphsys.core.errors import InputError
from graphsys.core.types import DEFAULT_NODE_TYPE, EdgeType
from graphsys.storage.sources import EdgeTable, GraphSource, NodeChunk, NodeTable, RawEdgeChunk, SourceSpec
from graphsys.storage.table_columns import Where, as_ids, as_labels, as_matrix, as_numbers, as_split, as_times
from graphsys.storage.tables import Table, open_table, table_files

_MAX_CLASSES = 1 << 16

Roles = dict[str, tuple[str, ...]]  # what columns are for -> their names


def open_tables(edges: Path, nodes: Path | None, spec: SourceSpec) -> GraphSource:
    """Open an edge table and perhaps a node table; each is a Parquet or CSV file, or a folder of such files.

    Raises:
        InputError: A file is damaged, or a column is missing; the message names those found.
        DiskError: The system refused.
    """
    edge_files = table_files(edges)
    node_files = () if nodes is None else table_files(nodes)
    edge_columns = open_table(edge_files)
    ignored = _unused(edge_columns, edge_roles(edge_columns, spec).values())
    node_tables: tuple[NodeTable, ...] = ()
    if node_files:
        node_columns = open_table(node_files)
        node_tables = (node_table(node_columns, spec),)
        ignored += _unused(node_columns, node_roles(node_columns, spec).values())
    else:
        _refuse_orphans(spec)
    return GraphSource(
        nodes=node_tables,
        edges=(edge_table(edge_columns, spec),),
        files=(*edge_files, *node_files),
        description=edges.name if nodes is None else f"{edges.name} and {nodes.name}",
        ignored=ignored,
        config=spec.config(),
    )


def _refuse_orphans(spec: SourceSpec) -> None:
    for option, value in (("--label", spec.label), ("--features", spec.features), ("--split", spec.split)):
        if value:
            raise InputError(f"{option} names a column of the node file, but there is none; give --nodes FILE")


def _unused(table: Table, roles: Any) -> tuple[str, ...]:
    used = {name for names in roles for name in names}
    return tuple(f"{table.shown}: column {name} (not used)" for name in table.names if name not in used)


def edge_roles(table: Table, spec: SourceSpec) -> Roles:
    """Return role -> columns of an edge table.

    Raises:
        InputError: A column is missing.
    """
    roles: Roles = {"src": (table.need(spec.src, "sources"),), "dst": (table.need(spec.dst, "destinations"),)}
    if spec.time is not None:
        roles["time"] = (table.need(spec.time, "times"),)
    if spec.weight is not None:
        roles["weight"] = (table.need(spec.weight, "weights"),)
    if spec.edge_features:
        roles["features"] = table.expand(spec.edge_features, "edge features")
    return roles


def edge_table(table: Table, spec: SourceSpec, edge_type: EdgeType | None = None) -> EdgeTable:
    """Return the edges of a table; ``edge_type`` is the spec's unless given."""
    roles = edge_roles(table, spec)
    columns = list(dict.fromkeys(name for names in roles.values() for name in names))
    types = {name: pa.float64() for role in ("weight", "features") for name in roles.get(role, ())}

    def chunks() -> Iterator[RawEdgeChunk]:
        first = 0
        for batch in table.batches(columns, types):
            yield _edge_chunk(batch, roles, _where(table, first))
            first += batch.num_rows
        if first == 0:
            raise InputError(f"{table.shown} has no rows; expected edges")

    return EdgeTable(
        edge_type=edge_type or spec.edge_type,
        chunks=chunks,
        num_edges=table.num_rows,
        reading_bytes=table.reading_bytes(columns),
    )


def _edge_chunk(batch: pa.RecordBatch, roles: Roles, where: Where) -> RawEdgeChunk:
    def one(role: str) -> tuple[Any, str, Where]:
        return batch.column(roles[role][0]), roles[role][0], where

    return RawEdgeChunk(
        src=as_ids(*one("src")),
        dst=as_ids(*one("dst")),
        timestamp=as_times(*one("time")) if "time" in roles else None,
        weight=as_numbers(*one("weight")) if "weight" in roles else None,
        edge_attr=as_matrix(batch, roles["features"], where) if "features" in roles else None,
    )


def node_roles(table: Table, spec: SourceSpec) -> Roles:
    """Return role -> columns of a node table.

    Raises:
        InputError: A column is missing.
    """
    roles: Roles = {"id": (table.need(spec.id, "node ids"),)}
    if spec.label is not None:
        roles["label"] = (table.need(spec.label, "labels"),)
    if spec.features:
        roles["features"] = table.expand(spec.features, "features")
    if spec.split is not None:
        roles["split"] = (table.need(spec.split, "splits"),)
    return roles


def node_table(table: Table, spec: SourceSpec, node_type: str | None = None) -> NodeTable:
    """Return the nodes of a table; ``node_type`` is the spec's unless given."""
    roles = node_roles(table, spec)
    columns = list(dict.fromkeys(name for names in roles.values() for name in names))
    types = {name: pa.float64() for name in roles.get("features", ())}
    classes = _classes(table, roles["label"][0]) if "label" in roles else ()

    def chunks() -> Iterator[NodeChunk]:
        first = 0
        for batch in table.batches(columns, types):
            yield _node_chunk(batch, roles, _where(table, first), classes)
            first += batch.num_rows

    return NodeTable(
        node_type=node_type or spec.node_type or DEFAULT_NODE_TYPE,
        num_nodes=table.num_rows,
        chunks=chunks,
        feature_names=roles.get("features", ()),
        reading_bytes=table.reading_bytes(columns),
        classes=classes,
    )


def _node_chunk(batch: pa.RecordBatch, roles: Roles, where: Where, classes: tuple[str, ...]) -> NodeChunk:
    def one(role: str) -> tuple[Any, str, Where]:
        return batch.column(roles[role][0]), roles[role][0], where

    return NodeChunk(
        num_rows=batch.num_rows,
        ids=as_ids(*one("id")),
        x=as_matrix(batch, roles["features"], where) if "features" in roles else None,
        y=as_labels(*one("label"), classes) if "label" in roles else None,
        split=as_split(*one("split")) if "split" in roles else None,
    )


def _classes(table: Table, column: str) -> tuple[str, ...]:
    """Return the distinct labels of a column of strings in ascending order; nothing for other columns."""
    kind = table.types[column]
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
        return ()
    found: set[str] = set()
    for batch in table.batches([column]):
        found |= set(pc.unique(batch.column(column)).to_pylist())
        if len(found) > _MAX_CLASSES:
            raise InputError(f"column '{column}' of {table.shown} has over {_MAX_CLASSES} labels; name another column")
    return tuple(sorted(name for name in found if name))


def _where(table: Table, first: int) -> Where:
    return lambda row: f"{table.shown} row {first + row}"
