"""Node and edge types of a raw graph: names that can lie on disk, and the reverse types that undirected graphs need."""

import re
from collections.abc import Iterator
from dataclasses import replace

from graphsys.core.errors import InputError
from graphsys.core.types import EdgeType, edge_type_key
from graphsys.storage.sources import EdgeTable, GraphSource, RawEdgeChunk

_NAME = re.compile(r"[^\W_]([\w .-]*[^\W_])?")  # no underscore at either end: folders join names by two of them


def check_names(source: GraphSource) -> None:
    """Raise InputError for names of types that could not be told apart on disk."""
    given: dict[str, list[tuple[str, ...]]] = {
        "node type": [(table.node_type,) for table in source.nodes],
        "edge type": [table.edge_type for table in source.edges],
    }
    for what, names in given.items():
        for parts in names:
            bad = next((part for part in parts if not _NAME.fullmatch(part) or "__" in part), None)
            if bad is not None:
                raise InputError(
                    f"the name '{bad}' of a {what} cannot be used: begin and end with a letter or digit, with spaces, "
                    f"single _, - and . in between"
                )
            if names.count(parts) > 1:
                raise InputError(f"{what} {'__'.join(parts)} is given twice; join its tables, or rename one")


def tables_to_build(tables: tuple[EdgeTable, ...], *, undirected: bool) -> tuple[EdgeTable, ...]:
    """Return the edge types of the store.

    Args:
        undirected: Give every type that joins two node types a reverse type, ``rev_`` before its relation.

    Raises:
        InputError: Such a reverse type is there already.
    """
    if not undirected:
        return tables
    known = {table.edge_type for table in tables}
    between = (table for table in tables if table.edge_type[0] != table.edge_type[2])
    return tables + tuple(_reverse_table(table, known) for table in between)


def _reverse_table(table: EdgeTable, known: set[EdgeType]) -> EdgeTable:
    src_type, relation, dst_type = table.edge_type
    edge_type = (dst_type, f"rev_{relation}", src_type)
    if edge_type in known:
        raise InputError(f"edge type {edge_type_key(edge_type)} is given; it cannot be made again with undirected")

    def chunks() -> Iterator[RawEdgeChunk]:
        for chunk in table.chunks():
            yield RawEdgeChunk(
                src=chunk.dst,
                dst=chunk.src,
                timestamp=chunk.timestamp,
                weight=chunk.weight,
                edge_attr=chunk.edge_attr,
            )

    return replace(table, edge_type=edge_type, chunks=chunks)
