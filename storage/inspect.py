"""Says what artefacts hold, from their metadata alone; of a store also how its degrees are spread."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from graphsys.core.types import EdgeType, edge_type_key
from graphsys.storage.artefacts import Artefact, find_artefacts
from graphsys.storage.flat import FlatArray
from graphsys.storage.manifest import Manifest, open_sealed_json, read_manifest
from graphsys.storage.run_file import verify_run_file
from graphsys.storage.store import Store
from graphsys.storage.window import Window

_BLOCK_ROWS = 1 << 19
_EXACT_DEGREES = 1 << 16  # degrees from here on share one counter; far beyond any 99th percentile of a real graph


def inspect(path: Path) -> dict[str, Any]:
    """Return what the artefact at ``path`` holds, or a folder's artefacts in the order of their names.

    Raises:
        ArtefactError: There is no artefact, or one of a newer format.
        CorruptError: The metadata changed.
        DiskError: The system refused.
    """
    found = find_artefacts(path)
    if found[0].path == path:
        return describe(found[0])
    artefacts = [describe(artefact) for artefact in found]
    nbytes = sum(artefact["nbytes"] for artefact in artefacts)
    return {"path": str(path), "kind": "folder", "nbytes": nbytes, "artefacts": artefacts}


def describe(artefact: Artefact) -> dict[str, Any]:
    """Return what one artefact holds, as plain JSON values.

    Raises:
        ArtefactError, CorruptError, DiskError: As :func:`inspect`.
    """
    common = {"path": str(artefact.path), "kind": artefact.kind, "nbytes": artefact.nbytes}
    if artefact.form == "folder":
        return {**common, **_describe_folder(artefact.path)}
    if artefact.form == "window":
        return {**common, **_describe_window(artefact.path)}
    read = open_sealed_json if artefact.form == "json" else verify_run_file
    return {**common, "content": read(artefact.path)}


def _describe_folder(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    arrays = {
        name: {"dtype": spec.dtype, "shape": list(spec.shape), "nbytes": spec.nbytes}
        for name, spec in manifest.arrays.items()
    }
    content = manifest.content
    if manifest.kind == "store":
        content = {**content, "in_degrees": _in_degrees(path, manifest)}
    return {
        "format_version": manifest.format_version,
        "fingerprint": manifest.fingerprint,
        "parents": manifest.parents,
        "content": content,
        "config": manifest.config,
        "arrays": arrays,
    }


def _in_degrees(path: Path, manifest: Manifest) -> dict[str, dict[str, float]]:
    store = Store(path, manifest)
    return {edge_type_key(edge_type): degree_statistics(_indptr(store, edge_type)) for edge_type in store.edge_types}


def _indptr(store: Store, edge_type: EdgeType) -> FlatArray:
    return store.array(f"topology/{edge_type_key(edge_type)}/indptr")


def degree_statistics(indptr: FlatArray) -> dict[str, float]:
    """Return mean, median, 99th percentile and maximum of the in-degrees, and the share of nodes without in-edges.

    Args:
        indptr: [N + 1] int64.

    Cost:
        One pass over 8 bytes per node, in blocks of 4 MiB.
    """
    counts = np.zeros(_EXACT_DEGREES + 1, np.int64)
    num_nodes, largest, last = indptr.shape[0] - 1, 0, 0
    for start, block in indptr.blocks(_BLOCK_ROWS):
        degree = np.diff(block, prepend=last)[1 if start == 0 else 0 :]
        last = int(block[-1])
        largest = max(largest, int(degree.max(initial=0)))
        counts += np.bincount(np.minimum(degree, _EXACT_DEGREES), minlength=_EXACT_DEGREES + 1)
    reached = np.cumsum(counts)
    return {
        "mean": last / max(num_nodes, 1),
        "median": int(np.searchsorted(reached, -(-num_nodes // 2))),
        "p99": int(np.searchsorted(reached, -(-99 * num_nodes // 100))),
        "max": largest,
        "isolated_share": int(counts[0]) / max(num_nodes, 1),
    }


def _describe_window(path: Path) -> dict[str, Any]:
    window = Window.open(path, None)
    entries = window.entries
    return {
        "fingerprint": window.header.fingerprint,
        "content": {
            **asdict(window.header),
            "num_nodes": sum(entry.num_nodes for entry in entries),
            "num_edges": sum(entry.num_edges for entry in entries),
            "num_rows": sum(entry.num_rows for entry in entries),
            "largest_batch_bytes": window.largest_nbytes,
        },
    }
