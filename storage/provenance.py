"""What a store was made from: a checksum of every raw file, or of a graph in memory."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from graphsys.core.progress import Progress, task
from graphsys.core.types import edge_type_key
from graphsys.storage.files import disk_errors
from graphsys.storage.sources import GraphSource

_BLOCK = 4 << 20

Bytes = npt.NDArray[np.uint8]


def source_parents(source: GraphSource, progress: Progress) -> dict[str, str]:
    """Return role -> xxh3_128 of every raw file (``file:<name>``), or of all values of a graph in memory."""
    if not source.files:
        return {"memory": _content_checksum(source)}
    names = _short_names(source.files)
    with disk_errors("read", source.files[0]):
        total = sum(path.stat().st_size for path in source.files)
    parents = {}
    with task(progress, "checksum raw files", total, "B") as work:
        for name, path in zip(names, source.files, strict=True):
            digest = xxhash.xxh3_128()
            with disk_errors("read", path), path.open("rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
                    work.advance(len(block))
            parents[f"file:{name}"] = digest.hexdigest()
    return parents


def _short_names(paths: tuple[Path, ...]) -> list[str]:
    """Return names that tell the files apart and say nothing of where they lie."""
    if len(paths) == 1:
        return [paths[0].name]
    folder = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    return [path.absolute().relative_to(folder).as_posix() for path in paths]


def _content_checksum(source: GraphSource) -> str:
    digest = xxhash.xxh3_128()

    def update(what: str, values: Any) -> None:
        if values is not None:
            raw = _bytes(values)
            digest.update(f"{what} {len(values)} {raw.nbytes} ".encode())
            digest.update(raw.data)

    for nodes in source.nodes:
        for node_chunk in nodes.chunks():
            for name in ("ids", "x", "y", "split"):
                update(f"{nodes.node_type} {name}", getattr(node_chunk, name))
    for edges in source.edges:
        for edge_chunk in edges.chunks():
            for name in ("src", "dst", "timestamp", "weight", "edge_attr"):
                update(f"{edge_type_key(edges.edge_type)} {name}", getattr(edge_chunk, name))
    return digest.hexdigest()


def _bytes(values: Any) -> Bytes:
    if isinstance(values, pa.Array):
        if pa.types.is_integer(values.type):
            return _bytes(values.to_numpy(zero_copy_only=False))
        return np.frombuffer("\0".join(map(str, values.to_pylist())).encode(), np.uint8)
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
