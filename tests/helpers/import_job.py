"""An import large enough to be stopped half-way; run as ``python -m helpers.import_job OUT`` from ``tests/``."""

import sys
from pathlib import Path

import numpy as np

from graphsys.core.units import MIB
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.memory_source import homogeneous
from graphsys.storage.sources import GraphSource

NUM_NODES, NUM_EDGES = 20_000, 4_000_000  # 32 MB of records: more than the sort of a 64 MiB import holds at once


def graph() -> GraphSource:
    """Return the same random graph every time."""
    rng = np.random.default_rng(0)
    ends = rng.integers(0, NUM_NODES, (2, NUM_EDGES))
    return homogeneous(ends, num_nodes=NUM_NODES, x=rng.random((NUM_NODES, 16), np.float32), y=np.arange(NUM_NODES) % 5)


def run_import(out: Path) -> str:
    """Import the graph; return the store's fingerprint."""
    return import_graph(graph(), out, ImportOptions(memory=64 * MIB)).fingerprint


if __name__ == "__main__":
    run_import(Path(sys.argv[1]))
