"""Whole tables of a raw graph, and writers of the folders that data sets come in."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from graphsys.core.types import Array
from graphsys.storage.sources import EdgeTable, NodeChunk, NodeTable, RawEdgeChunk


def whole_nodes(table: NodeTable) -> NodeChunk:
    """Return all rows of a table as one chunk."""
    chunks = list(table.chunks())
    fields = {name: _joined([getattr(chunk, name) for chunk in chunks]) for name in ("ids", "x", "y", "split")}
    return NodeChunk(num_rows=sum(chunk.num_rows for chunk in chunks), **fields)


def whole_edges(table: EdgeTable) -> RawEdgeChunk:
    """Return all rows of a table as one chunk."""
    chunks = list(table.chunks())
    names = ("src", "dst", "timestamp", "weight", "edge_attr")
    return RawEdgeChunk(**{name: _joined([getattr(chunk, name) for chunk in chunks]) for name in names})


def _joined(parts: list[Any]) -> Any:
    if not parts or parts[0] is None:
        assert all(part is None for part in parts)
        return None
    arrays = [part.to_numpy(zero_copy_only=False) if isinstance(part, pa.Array) else part for part in parts]
    return np.concatenate(arrays)


def write_csv(path: Path, rows: Array | list[list[object]]) -> None:
    """Write rows [R] or [R, C] as a CSV file without a header, gzipped when the name says so; NaN becomes ``nan``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, list) else np.atleast_1d(row).tolist() for row in rows]
    text = "".join(",".join(str(value) for value in line) + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
