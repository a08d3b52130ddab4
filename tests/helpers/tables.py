"""Stores with chosen external ids, and embedding tables of chosen vectors."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from graphsys.core.units import MIB
from graphsys.storage.embeddings import EmbeddingTable, TableOrigin, write_table
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import edge_table, graph_in_memory, node_table
from graphsys.storage.store import Store

CHECKPOINT = "c" * 32


def id_store(folder: Path, ids: list[int] | list[str] | None, num_nodes: int, *, name: str = "ids.gs") -> Store:
    """Import a ring of ``num_nodes`` nodes whose external ids are ``ids``; None: their row numbers."""
    named: Any = pa.array(ids) if ids is not None else None
    ends: Any = pa.array(ids if ids is not None else list(range(num_nodes)))
    order = np.roll(np.arange(num_nodes), 1)
    x = np.arange(num_nodes, dtype=np.float32)[:, None]
    source = graph_in_memory(
        (node_table("paper", num_nodes, ids=named, x=x),),
        (edge_table(("paper", "cites", "paper"), ends, ends.take(pa.array(order))),),
        "a ring",
    )
    import_graph(source, folder / name, ImportOptions(memory=64 * MIB))
    return Store.open(folder / name)


def make_table(
    folder: Path,
    vectors: npt.NDArray[Any],
    *,
    ids: list[int] | list[str] | None = None,
    dtype: str = "float32",
    block: int = 7,
    overwrite: bool = False,
) -> EmbeddingTable:
    """Write a table of ``vectors`` [N, dim] at ``folder / "emb.gs"``, ``block`` rows at a time."""
    name = "ids.gs"
    store = Store.open(folder / name) if (folder / name).exists() else id_store(folder, ids, len(vectors), name=name)
    values = np.asarray(vectors, np.float32)
    return write_table(
        folder / "emb.gs",
        (values[start : start + block] for start in range(0, len(values), block)),
        origin=TableOrigin(store=store, node_type="paper", checkpoint=CHECKPOINT, layer=2, config={"layer": 2}),
        dim=values.shape[1],
        dtype=dtype,
        overwrite=overwrite,
    )
