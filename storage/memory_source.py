"""A graph in memory as a raw graph."""

from collections.abc import Iterator

import numpy as np

from graphsys.core.types import DEFAULT_NODE_TYPE, DEFAULT_RELATION, Array, EdgeType
from graphsys.storage.sources import EdgeTable, GraphSource, NodeChunk, NodeTable, RawEdgeChunk, rows_per_chunk


def node_table(
    node_type: str,
    num_nodes: int,
    *,
    ids: Array | None = None,
    x: Array | None = None,
    y: Array | None = None,
    split: Array | None = None,
) -> NodeTable:
    """Return a table over arrays of ``num_nodes`` rows each."""
    rows = rows_per_chunk(sum(a.nbytes // max(len(a), 1) for a in (ids, x, y, split) if a is not None))

    def chunks() -> Iterator[NodeChunk]:
        for start in range(0, num_nodes, rows):
            yield NodeChunk(
                num_rows=min(rows, num_nodes - start),
                ids=_cut(ids, start, rows),
                x=_cut(x, start, rows),
                y=_cut(y, start, rows),
                split=_cut(split, start, rows),
            )

    return NodeTable(node_type=node_type, num_nodes=num_nodes, chunks=chunks)


def edge_table(
    edge_type: EdgeType,
    src: Array,
    dst: Array,
    *,
    timestamp: Array | None = None,
    weight: Array | None = None,
    edge_attr: Array | None = None,
) -> EdgeTable:
    """Return a table over arrays of E rows each."""
    optional = [values for values in (timestamp, weight, edge_attr) if values is not None]
    rows = rows_per_chunk(sum(values.nbytes // max(len(values), 1) for values in (src, dst, *optional)))

    def chunks() -> Iterator[RawEdgeChunk]:
        for start in range(0, len(src), rows):
            yield RawEdgeChunk(
                src=src[start : start + rows],
                dst=dst[start : start + rows],
                timestamp=_cut(timestamp, start, rows),
                weight=_cut(weight, start, rows),
                edge_attr=_cut(edge_attr, start, rows),
            )

    return EdgeTable(edge_type=edge_type, chunks=chunks, num_edges=len(src))


def graph_in_memory(nodes: tuple[NodeTable, ...], edges: tuple[EdgeTable, ...], description: str) -> GraphSource:
    """Return the source of tables over arrays; its provenance is a checksum of their values."""
    return GraphSource(nodes=nodes, edges=edges, files=(), description=description)


def homogeneous(
    edge_index: Array, *, num_nodes: int, x: Array | None = None, y: Array | None = None, split: Array | None = None
) -> GraphSource:
    """Return the one-type source of ``edge_index`` [2, E] with row numbers as ids.

    Args:
        x: [N, D] features.
        y: [N] or [N, K] labels.
        split: [N] uint8: 0 none, 1 train, 2 val, 3 test.
    """
    edge_type = (DEFAULT_NODE_TYPE, DEFAULT_RELATION, DEFAULT_NODE_TYPE)
    return graph_in_memory(
        (node_table(DEFAULT_NODE_TYPE, num_nodes, x=x, y=y, split=split),),
        (edge_table(edge_type, np.asarray(edge_index[0]), np.asarray(edge_index[1])),),
        "a graph in memory",
    )


def _cut(values: Array | None, start: int, rows: int) -> Array | None:
    return None if values is None else values[start : start + rows]
