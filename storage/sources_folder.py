"""Raw graphs in a folder: what ``graphsys generate`` wrote, or files by well-known names.

Edges lie in ``edge_index.npy``, in ``edges.parquet``, ``edges.csv`` and their like, or in the tables of ``edges/``.
Nodes lie in ``x.npy``, ``y.npy``, and ``split.npy`` (codes 0 to 3) or ``train.npy``, ``val.npy`` and ``test.npy``; or
in ``nodes.parquet``, ``nodes.csv`` and their like, or the tables of ``nodes/``. Other tables alone hold edges.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import FormatVersionError, InputError
from graphsys.storage.array_bundle import ArrayBundle
from graphsys.storage.array_files import ArrayFile, numeric, open_npy
from graphsys.storage.columns import array_column, side_by_side
from graphsys.storage.files import disk_errors
from graphsys.storage.generate import DESCRIPTION, FORMAT, VERSION
from graphsys.storage.sources import EdgeTable, GraphSource, NodeChunk, NodeTable, SourceSpec
from graphsys.storage.sources_arrays import open_arrays
from graphsys.storage.sources_tabular import edge_table, open_tables
from graphsys.storage.split_arrays import find_splits, num_masked, read_splits
from graphsys.storage.tables import is_table, open_table, table_files

Codes = npt.NDArray[np.uint8]


def open_folder(path: Path, spec: SourceSpec) -> GraphSource:
    """Open the raw graph in the folder ``path``.

    Args:
        spec: Names of types and columns; ``nodes`` takes the place of a node table in the folder.

    Raises:
        InputError: There is no graph, or its files are damaged or disagree.
        FormatVersionError: A newer program generated it.
        DiskError: The system refused.
    """
    with disk_errors("read", path):
        generated = (path / DESCRIPTION).is_file()
        arrays = {file.stem: open_npy(file) for file in sorted(path.glob("*.npy"))}
        edges, nodes = _table_named(path, "edges"), spec.nodes or _table_named(path, "nodes")
        loose = any(is_table(file) for file in path.iterdir())
    if generated:
        return _open_generated(path, arrays, spec)
    if edges is not None and nodes is None and arrays:
        return _open_mixed(path, edges, arrays, spec)
    if edges is not None or (loose and not arrays):
        source = open_tables(edges or path, nodes, spec)
        return replace(source, ignored=source.ignored + tuple(f"{name}.npy (not used)" for name in arrays))
    if not arrays:
        raise InputError(f"{path} holds no graph; expected edge_index.npy, edges.parquet, edges.csv or an OGB folder")
    return _open_arrays(path, arrays, spec)


def _table_named(folder: Path, name: str) -> Path | None:
    """Return the folder ``name``, or the table of that name, or None."""
    if (folder / name).is_dir():
        return folder / name
    return next((file for file in sorted(folder.glob(f"{name}.*")) if is_table(file)), None)


def _open_generated(path: Path, arrays: dict[str, ArrayFile], spec: SourceSpec) -> GraphSource:
    description = _read_description(path / DESCRIPTION)
    source = _open_mixed(path, path / "edges", arrays, spec)
    (nodes,), (edges,) = source.nodes, source.edges
    for what, found, said in (
        ("nodes", nodes.num_nodes, description["nodes"]),
        ("edges", edges.num_edges, description["edges"]),
    ):
        if found != said:
            raise InputError(
                f"{path} holds {found} {what}, but its {DESCRIPTION} says {said}; a file is missing or truncated, so "
                f"generate it again"
            )
    return replace(source, files=(path / DESCRIPTION, *source.files), description=f"generated graph {path.name}")


def _read_description(path: Path) -> dict[str, Any]:
    with disk_errors("read", path):
        raw = path.read_bytes()
    try:
        values = json.loads(raw)
        found, version = values["format"], values["version"]
        complete = isinstance(values["nodes"], int) and isinstance(values["edges"], int) and isinstance(version, int)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged or of another program; generate the graph again") from error
    if found != FORMAT or not complete:
        raise InputError(f"{path} describes '{found}', not '{FORMAT}'; remove it if the folder is of another program")
    if version > VERSION:
        raise FormatVersionError(f"{path} has version {version}, this program reads up to {VERSION}. Upgrade graphsys")
    return dict(values)


def _open_mixed(path: Path, edges: Path, arrays: dict[str, ArrayFile], spec: SourceSpec) -> GraphSource:
    """Open edges that lie in tables, and nodes that lie in arrays."""
    files = table_files(edges)
    bundle = ArrayBundle(arrays, path.name)
    nodes = _nodes_of_arrays(bundle, spec)
    table: EdgeTable = edge_table(open_table(files), spec)
    return GraphSource(
        nodes=() if nodes is None else (nodes,),
        edges=(table,),
        files=(*files, *(array.path for array in arrays.values())),
        description=path.name,
        ignored=bundle.ignored(),
        config=spec.config(),
    )


def _nodes_of_arrays(bundle: ArrayBundle, spec: SourceSpec) -> NodeTable | None:
    if len(spec.features) > 1:
        raise InputError(f"arrays hold all features in one; name one array, not {', '.join(spec.features)}")
    columns = {
        "x": bundle.choose(next(iter(spec.features), None), ("x",), "features"),
        "y": bundle.choose(spec.label, ("y", "labels"), "labels"),
        "split": bundle.get("split"),
    }
    present = {name: array for name, array in columns.items() if array is not None}
    stated = {array.shown: array.num_rows for array in present.values()}
    for array in find_splits(bundle).values():
        masked = num_masked(array, next(iter(stated.values()), None))
        stated |= {} if masked is None else {array.shown: masked}
    if not stated:
        return None
    (first, num_nodes), *others = stated.items()
    for name, count in others:
        if count != num_nodes:
            raise InputError(f"{first} says {num_nodes} nodes and {name} says {count}; row counts must agree")
    codes = _codes(bundle, present.pop("split", None), num_nodes, spec)
    return _node_table(spec.node_type, num_nodes, present, codes)


def _codes(bundle: ArrayBundle, split: ArrayFile | None, num_nodes: int, spec: SourceSpec) -> Codes | None:
    lists = find_splits(bundle)
    if split is None:
        return read_splits(lists, num_nodes, spec.split_index, bundle)
    if lists:
        raise InputError(f"{bundle.description} has {split.shown} and {', '.join(lists)}; keep one kind of split")
    return _read_codes(split)


def _read_codes(split: ArrayFile) -> Codes:
    if len(split.shape) != 1:
        raise InputError(f"{split.shown} has shape {list(split.shape)}; expected one code per node")
    codes = np.empty(split.num_rows, np.uint8)
    first = 0
    for found in array_column(numeric(split, "iu", "codes 0 (none), 1 (train), 2 (val) and 3 (test)")).blocks():
        wrong = np.flatnonzero((found < 0) | (found > 3))
        if wrong.size:
            raise InputError(
                f"{split.shown}: node {first + wrong[0]} has the code {found[wrong[0]]}; expected 0 (none), 1 (train), "
                f"2 (val) or 3 (test)"
            )
        codes[first : first + found.shape[0]] = found
        first += found.shape[0]
    return codes


def _node_table(node_type: str, num_nodes: int, arrays: dict[str, ArrayFile], codes: Codes | None) -> NodeTable:
    columns = {name: array_column(array) for name, array in arrays.items()}
    counted_in = next((array.path for array in arrays.values()), Path())

    def chunks() -> Iterator[NodeChunk]:
        for rows, found in side_by_side(columns, num_nodes, counted_in=counted_in):
            split = None if codes is None else codes[rows]
            yield NodeChunk(num_rows=rows.stop - rows.start, x=found.get("x"), y=found.get("y"), split=split)

    return NodeTable(node_type=node_type, num_nodes=num_nodes, chunks=chunks, reading_bytes=_nbytes(codes))


def _nbytes(codes: Codes | None) -> int:
    return 0 if codes is None else codes.nbytes


def _open_arrays(path: Path, arrays: dict[str, ArrayFile], spec: SourceSpec) -> GraphSource:
    """Open a graph all in arrays; split codes are no array that ``.npz`` files have, so they are added here."""
    files = tuple(array.path for array in arrays.values())
    split = arrays.pop("split", None)
    source = open_arrays(arrays, files, path.name, spec)
    if split is None:
        return source
    if not source.nodes:
        return replace(source, nodes=(_node_table(spec.node_type, split.num_rows, {}, _read_codes(split)),))
    nodes = source.nodes[0]
    if split.num_rows != nodes.num_nodes:
        raise InputError(f"{split.shown} has {split.num_rows} rows for {nodes.num_nodes} nodes; row counts must agree")
    codes = _codes(ArrayBundle(arrays, path.name), split, split.num_rows, spec)

    def chunks() -> Iterator[NodeChunk]:
        start = 0
        for chunk in nodes.chunks():
            yield replace(chunk, split=None if codes is None else codes[start : start + chunk.num_rows])
            start += chunk.num_rows

    reading_bytes = nodes.reading_bytes + _nbytes(codes)
    return replace(source, nodes=(replace(nodes, chunks=chunks, reading_bytes=reading_bytes),))
