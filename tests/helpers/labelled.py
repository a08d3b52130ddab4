"""A table that lies in the folder of its run, of nodes with classes, whose vectors form one cluster per class."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from helpers.tables import CHECKPOINT

from graphsys.core.config import parse_run
from graphsys.core.units import MIB
from graphsys.storage.embeddings import EmbeddingTable, TableOrigin, write_table
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import edge_table, graph_in_memory, node_table
from graphsys.storage.run_file import RUN_FILE_NAME, write_run_file
from graphsys.storage.store import Store


def clustered_table(
    folder: Path, *, rows: int, classes: int, dim: int = 16, ids: list[str] | None = None, seed: int = 0
) -> EmbeddingTable:
    """Write a store, a run file and a table; the class of node i is i modulo ``classes``, of every tenth unknown."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    label = np.arange(rows) % classes
    centres = generator.normal(size=(classes, dim)) * 2.2
    vectors = (centres[label] + generator.normal(size=(rows, dim))).astype(np.float32)
    store = _store(folder / "graph.gs", np.where(np.arange(rows) % 10 == 9, -1, label), ids)
    run = parse_run({"store": str(store.path), "out": str(folder), "memory": "256MiB"})
    write_run_file(folder / RUN_FILE_NAME, run)
    return write_table(
        folder / "embeddings.gs",
        iter([vectors]),
        origin=TableOrigin(store=store, node_type="paper", checkpoint=CHECKPOINT, layer=2, config={"layer": 2}),
        dim=dim,
    )


def _store(path: Path, y: np.ndarray, ids: list[str] | None) -> Store:
    rows = y.shape[0]
    names = pa.array(ids if ids is not None else np.arange(rows))
    x = np.zeros((rows, 1), np.float32)
    nodes = node_table("paper", rows, ids=None if ids is None else names, x=x, y=y.astype(np.int64))
    edges = edge_table(("paper", "cites", "paper"), names, names.take(pa.array(np.roll(np.arange(rows), 1))))
    import_graph(graph_in_memory((nodes,), (edges,), "clusters"), path, ImportOptions(memory=256 * MIB))
    return Store.open(path)
