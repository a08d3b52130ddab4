"""Finds out what a path holds and opens it as a raw graph."""

from dataclasses import replace
from pathlib import Path

from graphsys.core.errors import InputError
from graphsys.storage.files import disk_errors
from graphsys.storage.sources import GraphSource, SourceSpec
from graphsys.storage.sources_arrays import open_npy_graph, open_npz_graph
from graphsys.storage.sources_folder import open_folder
from graphsys.storage.sources_ogb import is_ogb, open_ogb
from graphsys.storage.sources_tabular import open_tables
from graphsys.storage.tables import TABLE_SUFFIXES, is_table

_KNOWN = f"a file ending in .npz, .npy, {', '.join(TABLE_SUFFIXES)}, or a folder"


def open_source(path: Path | None, spec: SourceSpec) -> GraphSource:
    """Open the raw graph at ``path``, or the files that ``spec`` names.

    Args:
        path: A file or folder; None when ``spec.edges`` says all. The spec's files are looked for below a folder.

    Raises:
        InputError: Nothing there can be read as a graph.
        DiskError: The system refused.
    """
    if path is None:
        if spec.edges is None:
            raise InputError("nothing to import: give a SOURCE, or --edges FILE")
        return _open_edges(spec.edges, spec)
    with disk_errors("read", path):
        path.stat()
    if spec.edges is not None:
        nodes = None if spec.nodes is None else _below(path, spec.nodes)
        return _open_edges(_below(path, spec.edges), replace(spec, nodes=nodes))
    if not path.is_dir():
        return _open_edges(path, spec)
    if is_ogb(path):
        return open_ogb(path, spec)
    return open_folder(path, spec)


def _below(folder: Path, file: Path) -> Path:
    inside = folder / file
    return inside if folder.is_dir() and inside.exists() else file


def _open_edges(path: Path, spec: SourceSpec) -> GraphSource:
    with disk_errors("read", path):
        is_folder = path.is_dir()
        if not is_folder and path.stat().st_size == 0:
            raise InputError(f"{path} is empty; expected a graph")
    if path.suffix == ".npz":
        return open_npz_graph(path, spec)
    if path.suffix == ".npy":
        return open_npy_graph(path, spec.nodes, spec)
    if is_folder or is_table(path):
        return open_tables(path, spec.nodes, spec)
    raise InputError(f"{path} is of no kind that can be imported; expected {_KNOWN}")
