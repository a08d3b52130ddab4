"""Splits a graph into parts of like cost with few edges between them, by METIS."""

import numpy as np
import numpy.typing as npt
from pymetis import CSRAdjacency, Options, part_graph, zero_copy_dtype

from graphsys.core.cluster_config import check_chunks
from graphsys.core.seeding import derive_key
from graphsys.core.types import NodeIds, Topology

NODE_COST = 16  # what a node's own rows cost a layer, in edges; its transform is worth some neighbours
_SEED_LIMIT = 1 << 31  # METIS takes a C int
_EDGE_BYTES = 120  # of memory while the graph is split, both directions of an edge and METIS's copies; measured
_NODE_BYTES = 32


def split_graph(topology: Topology, *, ways: int, slots: int, seed: int) -> NodeIds:
    """Return for each node its chunk [N] in [0, ways * slots); chunk ``way * slots + slot`` belongs to ``way``.

    The graph is split into ways first, so that few edges cross between them, and each way into its chunks. Edges count
    in both directions, nodes by their edges. The same for the same arguments.

    Raises:
        ConfigError: There are more chunks than nodes.
    """
    num_nodes, chunks = topology.num_nodes, ways * slots
    check_chunks(chunks, num_nodes)
    chunk = np.zeros(num_nodes, np.int64)
    if chunks == 1:
        return chunk
    indptr, indices = symmetrised(topology)
    way = _split(indptr, indices, ways, least=slots, seed=derive_key(seed, ways))
    for part in range(ways):
        member = np.flatnonzero(way == part)
        inner = _induced(indptr, indices, member)
        chunk[member] = part * slots + _split(*inner, slots, least=1, seed=derive_key(seed, slots, part))
    return chunk


def split_nbytes(num_nodes: int, num_edges: int, *, chunks: int) -> int:
    """Return about how many bytes :func:`split_graph` takes meanwhile, of a graph stored in one direction.

    One that holds both directions of every edge takes a third less.
    """
    return 0 if chunks == 1 else _EDGE_BYTES * num_edges + _NODE_BYTES * num_nodes


def symmetrised(topology: Topology) -> tuple[NodeIds, NodeIds]:
    """Return the graph as METIS wants it: ``indptr`` [N + 1] and neighbours [2E] in both directions, each once.

    Self-loops are left out.
    """
    num_nodes = topology.num_nodes
    destination = np.repeat(np.arange(num_nodes), np.diff(topology.indptr))
    source = np.asarray(topology.indices, np.int64)
    other = source != destination
    low = np.minimum(source, destination)[other]
    high = np.maximum(source, destination)[other]
    pairs = np.unique(low * num_nodes + high)
    low, high = pairs // num_nodes, pairs % num_nodes
    return _csr(np.concatenate([low, high]), np.concatenate([high, low]), num_nodes)


def _csr(row: NodeIds, column: NodeIds, num_rows: int) -> tuple[NodeIds, NodeIds]:
    order = np.argsort(row, kind="stable")
    indptr = np.zeros(num_rows + 1, np.int64)
    np.cumsum(np.bincount(row, minlength=num_rows), out=indptr[1:])
    return indptr, column[order]


def _induced(indptr: NodeIds, indices: NodeIds, member: NodeIds) -> tuple[NodeIds, NodeIds]:
    """Return the graph among the nodes ``member``, ascending, which are numbered anew from 0."""
    local = np.full(indptr.shape[0] - 1, -1, np.int64)
    local[member] = np.arange(member.shape[0])
    row = np.repeat(local, np.diff(indptr))
    column = local[indices]
    inside = (row >= 0) & (column >= 0)
    return _csr(row[inside], column[inside], member.shape[0])


def _split(indptr: NodeIds, indices: NodeIds, parts: int, *, least: int, seed: int) -> NodeIds:
    """Return the part [n] of each node; every part has ``least`` nodes or more."""
    num_nodes = indptr.shape[0] - 1
    if parts == 1:
        return np.zeros(num_nodes, np.int64)
    kind: npt.DTypeLike = zero_copy_dtype()
    graph = CSRAdjacency(indptr.astype(kind), indices.astype(kind))
    cost = (np.diff(indptr) + NODE_COST).astype(kind)
    found = part_graph(parts, graph, vweights=cost, options=Options(seed=seed % _SEED_LIMIT))
    return _with_least(np.asarray(found.vertex_part, np.int64), parts, least)


def _with_least(part: NodeIds, parts: int, least: int) -> NodeIds:
    """Move nodes out of the largest part until every part has ``least``: METIS leaves some of a tiny graph empty."""
    while (counts := np.bincount(part, minlength=parts)).min() < least:
        part[np.flatnonzero(part == counts.argmax())[-1]] = counts.argmin()
    return part
