"""What a raw graph looks like to the importer: tables of nodes and edges that can be read again and again in chunks.

Every raw form (Parquet, CSV, arrays, OGB folders, graphs in memory) becomes one :class:`GraphSource`; the importer
knows no other. Sources convert shapes, never check contents: the importer checks every value once, for all of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphsys.core.types import DEFAULT_NODE_TYPE, DEFAULT_RELATION, Array, EdgeType

CHUNK_BYTES = 2 << 20  # what one chunk should hold at most; the importer's smallest budget relies on it
CSV_READING_BYTES = 16 << 20  # what parsing one CSV file takes: text read ahead, and its columns

ExternalIds = Any  # pyarrow integer or string array, or an integer ndarray; pyarrow has no types


def rows_per_chunk(row_nbytes: int) -> int:
    """Return how many rows of ``row_nbytes`` bytes one chunk should hold: about 2 MiB, at least one row."""
    return max(1, min(CHUNK_BYTES // max(row_nbytes, 1), 1 << 18))


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChunk:
    """A run of C nodes, in the order of their dense ids."""

    num_rows: int  # C
    ids: ExternalIds | None = None  # [C] external ids; None: row numbers of the whole table
    x: Array | None = None  # [C, D] any float or integer dtype, stored as float32
    y: Array | None = None  # [C] int: class (-1 none); [C, K] int of 0 and 1: labels; [C] or [C, K] float: values
    split: Array | None = None  # [C] uint8: 0 none, 1 train, 2 val, 3 test


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTable:
    """All nodes of one type; either every chunk holds a field or none does."""

    node_type: str
    num_nodes: int | None  # None: unknown until it was read
    chunks: Callable[[], Iterator[NodeChunk]]  # starts at the first row on every call
    feature_names: tuple[str, ...] = ()  # D names for messages; empty: columns are numbered
    reading_bytes: int = 0  # memory that reading takes, beside a few chunks
    classes: tuple[str, ...] = ()  # names of class 0, 1, ... where labels were strings


@dataclass(frozen=True, slots=True, kw_only=True)
class RawEdgeChunk:
    """A run of C edges, in external ids."""

    src: ExternalIds  # [C] ids of the edge type's source node type
    dst: ExternalIds  # [C] ids of its destination node type
    timestamp: Array | None = None  # [C] any integer dtype
    weight: Array | None = None  # [C] any numeric dtype, stored as float32
    edge_attr: Array | None = None  # [C, De] any numeric dtype, stored as float32

    @property
    def num_rows(self) -> int:
        """Number of edges C."""
        return len(self.src)


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeTable:
    """All edges of one type; either every chunk holds a field or none does."""

    edge_type: EdgeType
    chunks: Callable[[], Iterator[RawEdgeChunk]]  # starts at the first row on every call
    num_edges: int | None = None  # None: unknown until it was read; only for progress and buffers
    reading_bytes: int = 0  # memory that reading takes, beside a few chunks


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSource:
    """A raw graph. A node type that has no table gets the distinct ids of its edges."""

    nodes: tuple[NodeTable, ...]
    edges: tuple[EdgeTable, ...]
    files: tuple[Path, ...]  # raw files, whose checksums become the store's parents; empty for a graph in memory
    description: str  # for people, such as "cora.npz"
    ignored: tuple[str, ...] = ()  # arrays or columns that were not used, each with the reason
    config: dict[str, Any] = field(default_factory=dict)  # choices that shaped it, as plain JSON without paths


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """How to read raw files: which files and columns play which part."""

    edges: Path | None = None  # edge file, or a folder of them; None: the source itself
    src: str = "src"
    dst: str = "dst"
    time: str | None = None
    weight: str | None = None
    edge_features: tuple[str, ...] = ()
    nodes: Path | None = None  # node file, or a folder of them
    id: str = "id"
    label: str | None = None
    features: tuple[str, ...] = ()
    split: str | None = None
    split_index: int = 0  # which of K splits, where a source holds several
    node_type: str = DEFAULT_NODE_TYPE
    relation: str = DEFAULT_RELATION

    @property
    def edge_type(self) -> EdgeType:
        """The one edge type of a homogeneous source."""
        return self.node_type, self.relation, self.node_type

    def config(self) -> dict[str, Any]:
        """Return what shaped the graph, as plain JSON; files are left to their checksums."""
        return {
            "src": self.src,
            "dst": self.dst,
            "time": self.time,
            "weight": self.weight,
            "edge_features": list(self.edge_features),
            "id": self.id,
            "label": self.label,
            "features": list(self.features),
            "split": self.split,
            "split_index": self.split_index,
            "node_type": self.node_type,
            "relation": self.relation,
        }
