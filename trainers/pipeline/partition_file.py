"""The partition of a run's graph, made once and kept in the run's folder.

A folder ``partition/`` of one flat array, ``node``, and ``manifest.json``.
"""

from pathlib import Path
from typing import Any

import numpy as np

from graphsys.core.config import RunConfig
from graphsys.core.errors import ArtefactError
from graphsys.core.progress import Progress
from graphsys.core.types import Topology
from graphsys.storage.files import atomic_folder
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.manifest import Manifest, read_manifest, verify_folder, write_manifest
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.partition import split_graph
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.run_folder import RunFolder

KIND = "partition"
NODE = "node"


def ensure_partition(run: RunConfig, shape: Shape, topology: Topology, store: str, progress: Progress) -> ChunkTable:
    """Return the run's partition, from its folder where an earlier call left it.

    Args:
        store: Fingerprint of the store.

    Raises:
        ConfigError: There are more chunks than nodes.
        DiskError: It cannot be written.
    """
    folder, config = RunFolder(run.out).partition, _config(run, shape)
    known = _read(folder, config, store)
    if known is not None:
        return known
    if shape.num_chunks > 1:
        progress.message(f"splitting the graph into {shape.num_chunks} chunks with METIS")
    chunk = split_graph(topology, ways=shape.ways, slots=shape.slots, seed=run.trainer.seed)
    table = ChunkTable.of(chunk, ways=shape.ways, slots=shape.slots)
    with atomic_folder(folder, overwrite=True) as partial:
        arrays = {NODE: write_array(partial / NODE, table.node)}
        content = {"counts": table.counts.tolist()}
        write_manifest(
            partial, Manifest(kind=KIND, config=config, parents={"store": store}, content=content, arrays=arrays)
        )
    return table


def read_partition(run: RunConfig, shape: Shape, store: str) -> ChunkTable:
    """Return the partition that another process has just ensured.

    Raises:
        ArtefactError: It is not there: the processes do not share a file system.
    """
    folder = RunFolder(run.out).partition
    found = _read(folder, _config(run, shape), store)
    if found is None:
        raise ArtefactError(
            f"{folder} lacks the partition that process 0 made; let 'out' lie where all processes see it"
        )
    return found


def _config(run: RunConfig, shape: Shape) -> dict[str, Any]:
    return {"ways": shape.ways, "slots": shape.slots, "seed": run.trainer.seed}


def _read(folder: Path, config: dict[str, Any], store: str) -> ChunkTable | None:
    """Return what lies there; None where it is missing, damaged or of another graph."""
    try:
        manifest = read_manifest(folder, KIND)
        if manifest.config != config or manifest.parents != {"store": store}:
            return None
        verify_folder(folder, manifest)
    except ArtefactError:  # it is made again
        return None
    node = FlatArray(folder / NODE, manifest.arrays[NODE]).read()
    return ChunkTable(node=node, counts=np.array(manifest.content["counts"], np.int64))
