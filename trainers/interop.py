"""Graphs of PyG and DGL, in memory or saved, as raw graphs for the importer."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import BaseStorage, EdgeStorage, GlobalStorage, NodeStorage
from torch_geometric.utils import to_edge_index

from graphsys.core.errors import InputError
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import DEFAULT_NODE_TYPE, DEFAULT_RELATION
from graphsys.core.units import parse_bytes
from graphsys.storage.files import disk_errors
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.sources import GraphSource
from graphsys.storage.store import Store
from graphsys.trainers.graph_attributes import AttributeReader

_STRUCTURE = {"edge_index", "adj_t", "num_nodes"}
_PYG_CLASSES = [DataEdgeAttr, DataTensorAttr, BaseStorage, GlobalStorage, NodeStorage, EdgeStorage]
_DGL_MAGIC = bytes.fromhex("3fa1b446f04f2edd")  # kDGLSerializeMagic of a DGL graph file, little-endian


class ImportKeywords(TypedDict, total=False):
    """What :func:`from_pyg` and :func:`from_dgl` take beside graph and place; as ``graphsys import`` does."""

    undirected: bool
    self_loops: Literal["keep", "drop", "add"]
    duplicates: Literal["keep", "drop", "error"]
    edge_ids: bool
    normalize: Literal["none", "row"]


def from_pyg(
    data: Data | HeteroData,
    out: Path | str,
    *,
    memory: str | int = "1GiB",
    split_index: int = 0,
    overwrite: bool = False,
    progress: Progress = SILENT,
    **options: Unpack[ImportKeywords],
) -> Store:
    """Import a PyG graph into the store ``out`` and open it; an unchanged import is skipped.

    Args:
        data: ``x``, ``y``, ``train_mask``, ``val_mask`` and ``test_mask`` of nodes, and ``edge_attr``, ``edge_weight``
            and ``time`` of edges are taken; other attributes are reported as ignored in the store's manifest.
        memory: Hard limit of the import, beside the graph itself.
        split_index: Which column of two-dimensional masks [N, K] to take.
        overwrite: Replace a store of another graph.
        options: See :class:`ImportKeywords`.

    Raises:
        InputError: The graph cannot be used; the message names the attribute.
        StaleArtefactError: ``out`` holds a store of another graph, and ``overwrite`` is not given.
    """
    wanted = ImportOptions(memory=parse_bytes(memory), **options)
    return _import(pyg_source(data, split_index=split_index), Path(out), wanted, overwrite, progress)


def from_dgl(
    graph: Any,
    out: Path | str,
    *,
    memory: str | int = "1GiB",
    split_index: int = 0,
    overwrite: bool = False,
    progress: Progress = SILENT,
    **options: Unpack[ImportKeywords],
) -> Store:
    """Import a DGL graph into the store ``out`` and open it; an unchanged import is skipped.

    Args:
        graph: A ``dgl.DGLGraph`` of one or several types. Its data may have the names of :func:`from_pyg`, or ``feat``,
            ``label``, ``weight`` and ``timestamp``.
        memory: As :func:`from_pyg`, and so the others.

    Raises:
        InputError, StaleArtefactError: As :func:`from_pyg`.
    """
    wanted = ImportOptions(memory=parse_bytes(memory), **options)
    return _import(dgl_source(graph, split_index=split_index), Path(out), wanted, overwrite, progress)


def _import(source: GraphSource, out: Path, options: ImportOptions, overwrite: bool, progress: Progress) -> Store:
    import_graph(source, out, options, overwrite=overwrite, progress=progress)
    return Store.open(out)


def pyg_source(data: Data | HeteroData, *, split_index: int = 0) -> GraphSource:
    """Return a PyG graph as a raw graph; ids are row numbers, and dense tensors are not copied.

    Raises:
        InputError: An attribute has an impossible shape or type.
    """
    reader = AttributeReader(split_index)
    if isinstance(data, HeteroData):
        nodes = [reader.nodes(name, data[name].num_nodes, _without_structure(data[name])) for name in data.node_types]
        edges = [reader.edges(name, *_pyg_ends(data[name], "__".join(name))) for name in data.edge_types]
        return reader.source(nodes, edges, "a PyG graph")
    ends, on_edges = _pyg_ends(data, "the graph")
    on_edges = {name: value for name, value in on_edges.items() if name == "edge_weight" or data.is_edge_attr(name)}
    on_nodes = {name: value for name, value in _without_structure(data).items() if name not in on_edges}
    edge_type = (DEFAULT_NODE_TYPE, DEFAULT_RELATION, DEFAULT_NODE_TYPE)
    node = reader.nodes(DEFAULT_NODE_TYPE, data.num_nodes, on_nodes)
    return reader.source([node], [reader.edges(edge_type, ends, on_edges)], "a PyG graph")


def _without_structure(storage: Any) -> dict[str, Any]:
    return {name: value for name, value in storage.to_dict().items() if name not in _STRUCTURE}


def _pyg_ends(storage: Any, owner: str) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    """Return the sources and destinations [E] of a PyG storage's edges, and its other attributes."""
    values, rest = storage.to_dict(), _without_structure(storage)
    index = values.get("edge_index")
    if index is None and isinstance(values.get("adj_t"), Tensor):
        # adj_t holds a row per destination. PyG fills in ones where edges have no weight.
        (dst, src), weight = to_edge_index(values["adj_t"])
        return (src, dst), rest if bool((weight == 1).all()) else {"edge_weight": weight, **rest}
    if index is None:
        raise InputError(f"{owner} has no edge_index; give its edges as edge_index [2, E]")
    if not isinstance(index, Tensor) or index.ndim != 2 or index.shape[0] != 2:
        found = tuple(index.shape) if isinstance(index, Tensor) else type(index).__name__
        raise InputError(f"{owner}: edge_index is {found}; expected a tensor [2, E]")
    return (index[0], index[1]), rest


def dgl_source(graph: Any, *, split_index: int = 0) -> GraphSource:
    """Return a DGL graph as a raw graph; ids are row numbers, and only the edge list is copied.

    Args:
        graph: ``dgl.DGLGraph``.

    Raises:
        InputError: An attribute has an impossible shape or type.
    """
    reader = AttributeReader(split_index)
    # DGL's own names of the only node type and the only edge type.
    names = {"_N": DEFAULT_NODE_TYPE, "_E": DEFAULT_RELATION}
    nodes = [
        reader.nodes(names.get(name, name), graph.num_nodes(name), graph.nodes[name].data) for name in graph.ntypes
    ]
    edges = []
    for canonical in graph.canonical_etypes:
        head, relation, tail = (names.get(name, name) for name in canonical)
        edges.append(reader.edges((head, relation, tail), graph.edges(etype=canonical), graph.edges[canonical].data))
    return reader.source(nodes, edges, "a DGL graph")


def load_graph_file(path: Path, *, split_index: int = 0) -> GraphSource:
    """Open a graph that ``torch.save`` (.pt, .pth) or ``dgl.save_graphs`` (.bin) wrote; no code in it is run.

    A ``.pt`` file holds a PyG ``Data`` or ``HeteroData``, a dictionary of tensors with ``edge_index``, or the processed
    file of a PyG data set of one graph.

    Raises:
        InputError: The file is damaged, holds something else, or would have to run code to be read.
        DiskError: The system refused.
    """
    with disk_errors("read", path):
        path.stat()
        if not path.is_file():  # reading a pipe would never end
            raise InputError(f"{path} is not a regular file; expected what torch.save or dgl.save_graphs wrote")
        with path.open("rb") as file:
            magic = file.read(8)
    if path.suffix == ".bin":
        source = dgl_source(_load_dgl(path, magic), split_index=split_index)
    else:
        source = pyg_source(_load_pyg(path), split_index=split_index)
    return GraphSource(
        nodes=source.nodes,
        edges=source.edges,
        files=(path,),
        description=path.name,
        ignored=source.ignored,
        config=source.config,
    )


def _load_pyg(path: Path) -> Data | HeteroData:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is truncated or not a file of torch.save; save the graph again")
    with torch.serialization.safe_globals(_PYG_CLASSES):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, AttributeError) as error:
            raise InputError(f"{path} cannot be read as a graph: {_reason(path, error)}") from error
    # The processed file of a PyG data set of one graph: (content, None, class of the content).
    if isinstance(content, tuple) and len(content) >= 2 and content[1] is None:
        hetero = HeteroData in content[2:3] and isinstance(content[0], dict)
        content = HeteroData.from_dict(content[0]) if hetero else content[0]
    if isinstance(content, dict) and ("edge_index" in content or "adj_t" in content):
        return Data.from_dict(content)
    if isinstance(content, Data | HeteroData):
        return content
    raise InputError(
        f"{path} holds {type(content).__name__}, not one graph; save a PyG Data or HeteroData, or a dictionary with "
        f"edge_index"
    )


def _reason(path: Path, error: BaseException) -> str:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError, AttributeError):
        names = []
    if names:
        return f"it holds objects of {', '.join(sorted(names))}, which would run code; save the Data object alone"
    return f"{str(error).splitlines()[0] if str(error) else type(error).__name__}; save the graph again"


def _load_dgl(path: Path, magic: bytes) -> Any:
    if magic != _DGL_MAGIC:
        raise InputError(f"{path} is not a file of dgl.save_graphs; it starts with {magic!r}")
    os.environ.setdefault("DGLBACKEND", "pytorch")
    try:
        import dgl
    except ImportError as error:
        raise InputError(f"{path} is a DGL graph, and DGL is missing; install it with graphsys[dgl]") from error
    try:
        graphs, _ = dgl.load_graphs(str(path))
    except dgl.DGLError as error:
        raise InputError(f"{path} is damaged: DGL cannot read it; save the graph again") from error
    if len(graphs) != 1:
        raise InputError(f"{path} holds {len(graphs)} graphs; save the one to import by itself")
    return graphs[0]
