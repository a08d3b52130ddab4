"""Every raw form of one graph tells the same story, as often as it is asked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from helpers.graphs import MEMORY, TinyGraph, tiny_graph
from helpers.raw_graphs import whole_edges, whole_nodes

from graphsys.core.types import Array
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import homogeneous
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import GraphSource, SourceSpec
from graphsys.storage.store import Store

GRAPH = tiny_graph(num_features=3)
TABLE_SPEC = SourceSpec(label="y", features=("x*",), split="split")


def tables(graph: TinyGraph) -> tuple[pa.Table, pa.Table]:
    edges = pa.table({"src": graph.edge_index[0], "dst": graph.edge_index[1]})
    features = {f"x{column}": graph.x[:, column] for column in range(graph.x.shape[1])}
    return edges, pa.table({"id": np.arange(len(graph.y)), "y": graph.y, "split": graph.split, **features})


def parquet(folder: Path) -> GraphSource:
    for name, table in zip(("edges", "nodes"), tables(GRAPH), strict=True):
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=97)
    return open_source(folder / "edges.parquet", replace(TABLE_SPEC, nodes=folder / "nodes.parquet"))


def csv(folder: Path) -> GraphSource:
    for name, table in zip(("edges", "nodes"), tables(GRAPH), strict=True):
        pa_csv.write_csv(table, folder / f"{name}.csv")
    return open_source(folder / "edges.csv", replace(TABLE_SPEC, nodes=folder / "nodes.csv"))


def npz(folder: Path) -> GraphSource:
    masks = {name: code == GRAPH.split for code, name in enumerate(("train", "val", "test"), 1)}
    np.savez_compressed(folder / "graph.npz", edge_index=GRAPH.edge_index, x=GRAPH.x, y=GRAPH.y, **masks)
    return open_source(folder / "graph.npz", SourceSpec())


def npy_folder(folder: Path) -> GraphSource:
    arrays: dict[str, Array] = {"edge_index": GRAPH.edge_index, "x": GRAPH.x, "y": GRAPH.y, "split": GRAPH.split}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return open_source(folder, SourceSpec())


def memory(_: Path) -> GraphSource:
    return homogeneous(GRAPH.edge_index, num_nodes=len(GRAPH.y), x=GRAPH.x, y=GRAPH.y, split=GRAPH.split)


@pytest.fixture(params=[parquet, csv, npz, npy_folder, memory], ids=lambda make: make.__name__)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> GraphSource:
    make: Callable[[Path], GraphSource] = request.param
    folder = tmp_path / "raw"
    folder.mkdir()
    return make(folder)


def test_tables_can_be_read_twice(source: GraphSource) -> None:
    (nodes,), (edges,) = source.nodes, source.edges
    for _ in range(2):
        found = whole_nodes(nodes)
        assert found.num_rows == 200
        np.testing.assert_allclose(np.asarray(found.x), GRAPH.x, rtol=1e-6)
        np.testing.assert_array_equal(whole_edges(edges).src, GRAPH.edge_index[0])


def test_announced_counts_hold(source: GraphSource) -> None:
    (nodes,), (edges,) = source.nodes, source.edges
    assert nodes.num_nodes in (None, 200)
    assert edges.num_edges in (None, 1600)


def test_nothing_is_ignored_silently(source: GraphSource) -> None:
    assert source.ignored == ()


def test_files_are_named_for_the_provenance(source: GraphSource) -> None:
    assert all(path.is_file() for path in source.files)


def test_every_form_gives_the_same_store(source: GraphSource, tmp_path: Path) -> None:
    import_graph(source, tmp_path / "store.gs", ImportOptions(memory=MEMORY))
    import_graph(memory(tmp_path), tmp_path / "reference.gs", ImportOptions(memory=MEMORY))
    store, reference = Store.open(tmp_path / "store.gs"), Store.open(tmp_path / "reference.gs")
    assert store.manifest.arrays == reference.manifest.arrays
    assert store.manifest.content["node_types"] == reference.manifest.content["node_types"]
