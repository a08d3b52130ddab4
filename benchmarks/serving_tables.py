"""Tables for the benchmarks of serving: vectors without a training behind them."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from graphsys.core.units import MIB
from graphsys.storage.embeddings import EmbeddingTable, TableOrigin, write_table
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import edge_table, graph_in_memory, node_table
from graphsys.storage.store import Store

BLOCK = 1 << 16  # rows made at a time


def made_table(path: Path, rows: int, dim: int, blocks: Iterable[npt.NDArray[np.float32]]) -> EmbeddingTable:
    """Return the table at ``path``, made of ``blocks`` when it is not there yet; row i has id i."""
    if path.exists():
        return EmbeddingTable.open(path)
    nodes = path.parent / f"nodes-{rows}.gs"
    if not nodes.exists():
        ends = pa.array(np.arange(2, dtype=np.int64))
        source = graph_in_memory(
            (node_table("node", rows),), (edge_table(("node", "to", "node"), ends, ends),), "nodes without features"
        )
        import_graph(source, nodes, ImportOptions(memory=256 * MIB))
    origin = TableOrigin(store=Store.open(nodes), node_type="node", checkpoint="0" * 32, layer=1, config={})
    return write_table(path, blocks, origin=origin, dim=dim)


def random_blocks(rows: int, dim: int, seed: int = 0) -> Iterator[npt.NDArray[np.float32]]:
    """Yield vectors [*, dim] of normal numbers."""
    random = np.random.default_rng(seed)
    for start in range(0, rows, BLOCK):
        yield random.standard_normal((min(BLOCK, rows - start), dim), np.float32)
