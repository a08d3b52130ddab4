"""Chunks of one table must agree with each other, and may be of any size."""

import threading
from collections.abc import Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import MEMORY

from graphsys.core.errors import InputError
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import edge_table, graph_in_memory
from graphsys.storage.read_ahead import read_ahead
from graphsys.storage.sources import EdgeTable, GraphSource, NodeChunk, NodeTable, RawEdgeChunk
from graphsys.storage.store import Store


def run(folder: Path, *, nodes: list[dict[str, Any]], edges: list[dict[str, Any]] | None = None) -> Store:
    """Import tables whose chunks are given one by one."""

    def node_chunks() -> Iterator[NodeChunk]:
        for fields in nodes:
            arrays = {name: np.array(values) for name, values in fields.items()}
            yield NodeChunk(num_rows=len(next(iter(arrays.values()))), **arrays)

    def edge_chunks() -> Iterator[RawEdgeChunk]:
        for fields in edges or []:
            yield RawEdgeChunk(**{name: np.array(values) for name, values in fields.items()})

    source = GraphSource(
        nodes=(NodeTable(node_type="node", num_nodes=None, chunks=node_chunks),),
        edges=(EdgeTable(edge_type=("node", "to", "node"), chunks=edge_chunks),),
        files=(),
        description="chunks",
    )
    import_graph(source, folder / "out.gs", ImportOptions(memory=MEMORY))
    return Store.open(folder / "out.gs")


def test_chunks_of_any_size_follow_each_other(tmp_path: Path) -> None:
    parts = [[[1.0], [2.0]], [[3.0]], [[4.0], [5.0], [6.0]]]
    store = run(tmp_path, nodes=[{"x": x} for x in parts], edges=[{"src": [5], "dst": [0]}, {"src": [4], "dst": [0]}])
    assert store.features("node").read()[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert store.topology(("node", "to", "node")).indices.tolist() == [4, 5]


def test_a_graph_may_have_no_edges(tmp_path: Path) -> None:
    topology = run(tmp_path, nodes=[{"x": [[1.0], [2.0]]}]).topology(("node", "to", "node"))
    assert (topology.num_edges, topology.indptr.tolist()) == (0, [0, 0, 0])


def test_a_graph_without_nodes_is_refused(tmp_path: Path) -> None:
    source = graph_in_memory((), (edge_table(("a", "to", "b"), np.empty(0, int), np.empty(0, int)),), "nothing")
    with pytest.raises(InputError, match="node type 'a' has neither a table nor edges"):
        import_graph(source, tmp_path / "out.gs", ImportOptions(memory=MEMORY))
    assert list(tmp_path.iterdir()) == []


NODES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "no rows": ([], "node type 'node' has no rows"),
    "features come and go": ([{"x": [[1]], "y": [1]}, {"y": [1]}], "some chunks hold x and some do not"),
    "another width": ([{"x": [[1]]}, {"x": [[1, 2]]}], "node 1 has 2 features where others have 1"),
    "another kind of label": ([{"y": [1]}, {"y": [0.5]}], "labels are class at first and value from node 1"),
    "more labels": (
        [{"y": [[0, 1]]}, {"y": [[0, 1, 1]]}],
        r"labels have shape \(3,\) per node where others have \(2,\)",
    ),
    "another kind of id": ([{"ids": [1]}, {"ids": ["a"]}], "some ids are integers and some are strings"),
}


@pytest.mark.parametrize(("chunks", "message"), NODES.values(), ids=NODES)
def test_node_chunks_that_disagree_are_refused(chunks: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, nodes=chunks)
    assert list(tmp_path.iterdir()) == []


EDGE = {"src": [0, 0], "dst": [0, 0]}
EDGES: dict[str, tuple[list[dict[str, Any]], str]] = {
    "weights stop": ([EDGE | {"weight": [1.0, 1.0]}, EDGE], "some edges have weights and some, from edge 2, do not"),
    "times begin": ([EDGE, EDGE | {"timestamp": [1, 2]}], "some edges have timestamps and some"),
    "fewer weights": ([EDGE | {"weight": [1.0]}], "1 weights for 2 edges"),
    "fewer destinations": ([{"src": [0, 0], "dst": [0]}], "1 destinations for 2 sources from edge 0"),
    "other features": (
        [EDGE | {"edge_attr": [[1.0], [1.0]]}, EDGE | {"edge_attr": [[1.0, 2.0]] * 2}],
        r"edge 2 has features of shape \(2,\) where the first has 1",
    ),
}


@pytest.mark.parametrize(("chunks", "message"), EDGES.values(), ids=EDGES)
def test_edge_chunks_that_disagree_are_refused(chunks: list[dict[str, Any]], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, nodes=[{"x": [[1.0]]}], edges=chunks)
    assert list(tmp_path.iterdir()) == []


def test_reading_ahead_keeps_the_order_and_raises_in_place() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise InputError("after five")

    reader = read_ahead(items())
    assert list(islice(reader, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="after five"):
        next(reader)


def test_reading_ahead_ends_with_its_reader() -> None:
    reader = read_ahead(repeat(7))
    assert list(islice(reader, 2)) == [7, 7]
    del reader  # although the items would never end
    assert not any(thread.name.startswith("graphsys-read-ahead") for thread in threading.enumerate())
