"""Reads the raw folder of an Open Graph Benchmark node-property data set: CSV, binary and heterogeneous layouts.

Source:
    The layout is what ``ogb.nodeproppred`` downloads: ``raw/`` and ``split/<scheme>/``, files without headers.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import InputError
from graphsys.core.types import Array, EdgeType
from graphsys.storage.array_files import ArrayFile, open_npz
from graphsys.storage.columns import Column, array_column, csv_column, csv_named_counts, csv_texts, side_by_side
from graphsys.storage.sources import (
    CSV_READING_BYTES,
    EdgeTable,
    GraphSource,
    NodeChunk,
    NodeTable,
    RawEdgeChunk,
    SourceSpec,
)
from graphsys.storage.sources_arrays import open_arrays

_EDGES, _ARRAYS, _TRIPLETS = "edge.csv.gz", "data.npz", "triplet-type-list.csv.gz"
_SPLIT_FILES = ("train.csv.gz", "valid.csv.gz", "test.csv.gz")
_ARRAY_NAMES = {"edge_index": "edge_index", "node_feat": "x", "edge_feat": "edge_attr", "num_nodes_list": "num_nodes"}


def is_ogb(path: Path) -> bool:
    """Whether ``path`` is the folder of an OGB data set (the one that holds ``raw``)."""
    return any((path / "raw" / name).is_file() for name in (_EDGES, _ARRAYS, _TRIPLETS))


def open_ogb(path: Path, spec: SourceSpec) -> GraphSource:
    """Open the OGB data set at ``path``; ids are row numbers, and edges keep the direction they are written in.

    Args:
        spec: ``split`` names the scheme where ``split/`` holds several; ``node_type`` and ``relation`` name the types
            of a homogeneous graph.

    Raises:
        InputError: A file is missing, damaged, or holds more than one graph.
        DiskError: The system refused a read.
    """
    folder = _Folder(path, spec)
    if (folder.raw / _TRIPLETS).is_file():
        nodes, edges = _heterogeneous(folder)
    elif (folder.raw / _ARRAYS).is_file():
        nodes, edges = _binary(folder)
    else:
        nodes, edges = _homogeneous(folder)
    return GraphSource(
        nodes=tuple(nodes),
        edges=tuple(edges),
        files=tuple(sorted(folder.used)),
        description=f"OGB folder {path.name}",
        ignored=(*folder.ignored_arrays, *folder.ignored_files()),
        config=spec.config(),
    )


class _Folder:
    """A data set's folder, and which of its files were used so far."""

    def __init__(self, path: Path, spec: SourceSpec) -> None:
        self.path = path
        self.spec = spec
        self.raw = path / "raw"
        self.used: set[Path] = set()
        self.ignored_arrays: list[str] = []

    def needed(self, path: Path) -> Path:
        """Return ``path``, noted as used."""
        if not path.is_file():
            raise InputError(f"{path} is missing; an OGB folder needs it. Download the data set again")
        self.used.add(path)
        return path

    def optional(self, path: Path) -> Path | None:
        """Return ``path``, noted as used, or None where there is no such file."""
        return self.needed(path) if path.is_file() else None

    def ignored_files(self) -> list[str]:
        """Return the raw data files that were not used, with the reason."""
        known = {"nodetype-has-feat.csv.gz", "nodetype-has-label.csv.gz"}
        unused = (file for file in sorted(self.raw.rglob("*.csv.gz")) if file not in self.used)
        return [
            f"{file.relative_to(self.path)} (the store has no place for it)"
            for file in unused
            if file.name not in known
        ]

    def split(self, node_type: str | None, num_nodes: int) -> npt.NDArray[np.uint8] | None:
        """Return the split [N] of a node type, or None where there is none."""
        folder = self._split_folder(node_type)
        if folder is None:
            return None
        codes = np.zeros(num_nodes, np.uint8)
        for code, name in enumerate(_SPLIT_FILES, 1):
            file = self.needed(folder / name)
            for index in csv_column(file, np.int64).blocks():
                if index.min() < 0 or index.max() >= num_nodes:
                    worst = index.min() if index.min() < 0 else index.max()
                    raise InputError(f"{file} names node {worst}, but the graph has nodes 0 to {num_nodes - 1}")
                if index.ndim != 1:
                    raise InputError(f"{file} has {index.shape[1]} columns; expected one node index per row")
                taken = index[(codes[index] != 0) & (codes[index] != code)]
                if taken.size:
                    other = folder / _SPLIT_FILES[codes[taken[0]] - 1]
                    raise InputError(f"{file}: node {taken[0]} is in {other.name} too; a node belongs to one split")
                codes[index] = code
        return codes

    def _split_folder(self, node_type: str | None) -> Path | None:
        root = self.path / "split"
        schemes = sorted(child.name for child in root.iterdir() if child.is_dir()) if root.is_dir() else []
        if self.spec.split is not None and self.spec.split not in schemes:
            raise InputError(f"{root} has no scheme '{self.spec.split}'; it has {', '.join(schemes) or 'none'}")
        if not schemes:
            return None
        if self.spec.split is None and len(schemes) > 1:
            raise InputError(f"{root} has the schemes {', '.join(schemes)}; name one with --split")
        folder = root / (self.spec.split or schemes[0])
        if node_type is not None:
            folder /= node_type
        return folder if folder.is_dir() else None


def _homogeneous(folder: _Folder) -> tuple[list[NodeTable], list[EdgeTable]]:
    counts = folder.needed(folder.raw / "num-node-list.csv.gz")
    num_nodes = _only_graph(csv_column(counts, np.int64))
    split = folder.split(None, num_nodes)
    nodes = _csv_nodes(folder, (folder.raw, folder.raw), folder.spec.node_type, (num_nodes, counts), split)
    return [nodes], [_csv_edges(folder, folder.raw, folder.spec.edge_type)]


def _heterogeneous(folder: _Folder) -> tuple[list[NodeTable], list[EdgeTable]]:
    raw = folder.raw
    counts = folder.needed(raw / "num-node-dict.csv.gz")
    nodes = [
        _csv_nodes(
            folder,
            (raw / "node-feat" / node_type, raw / "node-label" / node_type),
            node_type,
            (num_nodes, counts),
            folder.split(node_type, num_nodes),
        )
        for node_type, num_nodes in csv_named_counts(counts).items()
    ]
    triplets = folder.needed(raw / _TRIPLETS)
    edges = [
        _csv_edges(folder, raw / "relations" / "___".join(names), (names[0], names[1], names[2]))
        for names in csv_texts(triplets, 3)
    ]
    return nodes, edges


def _binary(folder: _Folder) -> tuple[list[NodeTable], list[EdgeTable]]:
    path = folder.needed(folder.raw / _ARRAYS)
    arrays = open_npz(path)
    named = {_ARRAY_NAMES[name]: array for name, array in arrays.items() if name in _ARRAY_NAMES}
    folder.ignored_arrays.extend(
        f"{_ARRAYS}: {name} (the store has no place for it)"
        for name in arrays
        if name not in {*_ARRAY_NAMES, "num_edges_list"}
    )
    if "num_nodes" not in named:
        raise InputError(f"{path} has no array 'num_nodes_list'; an OGB folder needs it. Download the data set again")
    num_nodes = _only_graph(array_column(named["num_nodes"]))
    source = open_arrays(named, (path,), path.name, folder.spec)
    labels = folder.optional(folder.raw / "node-label.npz")
    y = array_column(_only_array(labels, "node_label")) if labels else None
    x = array_column(named["x"]) if "x" in named else None
    nodes = _node_table(folder.spec.node_type, (num_nodes, path), x, y, folder.split(None, num_nodes))
    return [nodes], list(source.edges)


def _only_array(path: Path, name: str) -> ArrayFile:
    arrays = open_npz(path)
    if name not in arrays:
        raise InputError(f"{path} has no array '{name}'; it has {', '.join(arrays)}")
    return arrays[name]


def _only_graph(counts: Column) -> int:
    values = np.concatenate([block.reshape(-1) for block in counts.blocks()])
    if values.shape[0] != 1:
        raise InputError(f"{counts.path} counts {values.shape[0]} graphs; graphsys imports one graph at a time")
    if values[0] < 0:
        raise InputError(f"{counts.path} says {values[0]}; expected a count of 0 or more. Download the data set again")
    return int(values[0])


def _csv_nodes(
    folder: _Folder,
    places: tuple[Path, Path],
    node_type: str,
    counted: tuple[int, Path],
    split: npt.NDArray[np.uint8] | None,
) -> NodeTable:
    features = folder.optional(places[0] / "node-feat.csv.gz")
    labels = folder.optional(places[1] / "node-label.csv.gz")
    x = csv_column(features, np.float32) if features else None
    y = csv_column(labels, np.float64) if labels else None
    return _node_table(node_type, counted, x, y, split)


def _node_table(
    node_type: str,
    counted: tuple[int, Path],
    x: Column | None,
    y: Column | None,
    split: npt.NDArray[np.uint8] | None,
) -> NodeTable:
    num_nodes, counted_in = counted
    whole = y is not None and _holds_whole_numbers(y)

    def chunks() -> Iterator[NodeChunk]:
        for rows, found in side_by_side({"x": x, "y": y}, num_nodes, counted_in=counted_in):
            yield NodeChunk(
                num_rows=rows.stop - rows.start,
                x=found["x"].reshape(rows.stop - rows.start, -1) if x is not None else None,
                y=_labels(found["y"], whole=whole) if y is not None else None,
                split=split[rows] if split is not None else None,
            )

    held = 2 * CSV_READING_BYTES + (0 if split is None else split.nbytes)
    return NodeTable(node_type=node_type, num_nodes=num_nodes, chunks=chunks, reading_bytes=held)


def _holds_whole_numbers(labels: Column) -> bool:
    # Unlabelled nodes are NaN, so classes may lie in a float column: one pass tells classes from values.
    return all(np.all(np.isnan(block) | (block == np.floor(block))) for block in labels.blocks())


def _labels(found: Array, *, whole: bool) -> Array:
    flat = found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found
    return np.where(np.isnan(flat), -1, flat).astype(np.int64) if whole else flat.astype(np.float32)


def _csv_edges(folder: _Folder, place: Path, edge_type: EdgeType) -> EdgeTable:
    ends = csv_column(folder.needed(place / _EDGES), np.int64)
    if ends.row_nbytes != 2 * 8:
        raise InputError(f"{ends.path} has {ends.row_nbytes // 8} columns; an edge is 'source,destination'")
    counts = folder.needed(place / "num-edge-list.csv.gz")
    features = folder.optional(place / "edge-feat.csv.gz")
    attr = csv_column(features, np.float32) if features else None
    num_edges = _only_graph(csv_column(counts, np.int64))

    def chunks() -> Iterator[RawEdgeChunk]:
        for _, found in side_by_side({"ends": ends, "attr": attr}, num_edges, counted_in=counts):
            pairs, values = found["ends"], found.get("attr")
            edge_attr = None if values is None else values.reshape(pairs.shape[0], -1)
            yield RawEdgeChunk(src=pairs[:, 0], dst=pairs[:, 1], edge_attr=edge_attr)

    held = (1 + (attr is not None)) * CSV_READING_BYTES
    return EdgeTable(edge_type=edge_type, chunks=chunks, num_edges=num_edges, reading_bytes=held)
