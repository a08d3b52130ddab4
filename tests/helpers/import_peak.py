"""Imports a Parquet graph and prints by how many bytes the process grew; run as ``python -m helpers.import_peak``.

Arguments: FORM (ids, texts or features), FOLDER, MEMORY in bytes.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec

NUM_EDGES, NUM_COLUMNS = 3_000_000, 8
FEATURES = tuple(f"f{place}" for place in range(NUM_COLUMNS))


def write_graph(form: str, folder: Path, num_nodes: int, num_edges: int) -> None:
    """Write ``edges.parquet`` and, with string ids, ``nodes.parquet``."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    ends = {name: rng.integers(0, num_nodes, num_edges) for name in ("src", "dst")}
    columns: dict[str, Any] = {name: node * 99_991 % (1 << 31) for name, node in ends.items()}
    if form == "texts":
        names = pa.array([f"https://example.org/{node:09d}" for node in range(num_nodes)])
        columns = {name: names.take(pa.array(node)) for name, node in ends.items()}
        values = {name: rng.random(num_nodes, np.float32) for name in FEATURES}
        pq.write_table(pa.table({"id": names, **values}), folder / "nodes.parquet")
    if form == "features":
        columns |= {name: rng.random(num_edges, np.float32) for name in FEATURES}
    pq.write_table(pa.table(columns), folder / "edges.parquet")


def run_import(form: str, folder: Path, memory: int) -> int:
    """Import what :func:`write_graph` wrote; return the number of its edges."""
    spec = SourceSpec(
        nodes=folder / "nodes.parquet" if form == "texts" else None,
        features=FEATURES if form == "texts" else (),
        edge_features=FEATURES if form == "features" else (),
    )
    source = open_source(folder / "edges.parquet", spec)
    summary = import_graph(source, folder / "graph.gs", ImportOptions(memory=memory, undirected=form == "ids"))
    return int(summary.edges["node__to__node"]["edges_read"])


def peak_bytes() -> int:
    """Return the largest resident set that this process ever had."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Import a tiny graph, so that the interpreter is whole and warm, then the large one."""
    form, folder, memory = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    run_import(form, folder / "small", memory)
    before = peak_bytes()
    print(run_import(form, folder / "large", memory), peak_bytes() - before)


if __name__ == "__main__":
    main()
