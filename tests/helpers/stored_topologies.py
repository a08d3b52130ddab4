"""Topologies in files, as a store has them."""

from pathlib import Path

from graphsys.core.types import Topology
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.store import StoredTopology


def stored(folder: Path, topology: Topology) -> StoredTopology:
    """Write ``indptr`` and ``indices`` below ``folder``; return them as memory maps."""
    indptr = FlatArray(folder / "indptr", write_array(folder / "indptr", topology.indptr))
    indices = FlatArray(folder / "indices", write_array(folder / "indices", topology.indices))
    return StoredTopology(
        indptr=indptr.memmap(),
        indices=indices.memmap(),
        indptr_array=indptr,
        indices_array=indices,
        num_src_nodes=topology.num_src_nodes,
    )
