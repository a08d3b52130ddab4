"""Embedding tables: one vector per node, looked up by external id, that any Zarr reader opens.

Layout: ``docs/format/embeddings.md``.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import ArtefactError, InputError
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import NodeIds
from graphsys.storage.direct_writer import MOST_BUFFER_BYTES
from graphsys.storage.export import IdColumn, ParquetShape, export_npy, export_parquet
from graphsys.storage.files import atomic_folder, disk_errors
from graphsys.storage.flat import FlatArray, FlatSpec, FlatWriter
from graphsys.storage.groups import write_groups
from graphsys.storage.id_map import ExternalIds, IdMap, Kind
from graphsys.storage.manifest import MANIFEST_NAME, Manifest, fingerprint, read_manifest, write_manifest
from graphsys.storage.row_blocks import cut_rows, read_blocks
from graphsys.storage.store import Store

KIND = "embedding_table"
VECTORS = "vectors"
ID_MAP = "id_map"
BLOCK_BYTES = 8 << 20  # vectors handled at a time


class EmbeddingTable:
    """A table of vectors on disk, opened for reading.

    Nothing is read before it is asked for, and nothing is answered that was not compared with its checksum: ids when
    the first one is looked up, a chunk of vectors when the first of them is.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        content = manifest.content
        self.path = path
        self.manifest = manifest
        self.fingerprint = manifest.fingerprint
        self.version: str = content["version"]
        self.dim: int = content["dim"]
        self.dtype: np.dtype[Any] = np.dtype(content["dtype"])
        self.num_rows: int = content["num_rows"]
        self.node_type: str = content["node_type"]
        self.layer: int = content["layer"]
        self.id_kind: Kind = content["id_kind"]
        self.vectors = FlatArray(path / VECTORS, manifest.arrays[VECTORS])
        self._rows = self.vectors.memmap()
        self._checked = np.zeros(len(self.vectors.spec.checksums), np.bool_)  # by chunk of vectors
        self._id_arrays = {
            Path(name).name: FlatArray(path / name, spec)
            for name, spec in manifest.arrays.items()
            if name.startswith(f"{ID_MAP}/")
        }

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the table at ``path``.

        Raises:
            ArtefactError: It is not an embedding table, or one of a newer format.
            CorruptError: Its manifest changed, or an array is truncated.
        """
        return cls(path, read_manifest(path, KIND))

    @cached_property
    def ids(self) -> IdMap:
        """The external ids of all rows, memory-mapped.

        Raises:
            CorruptError: They are not as they were written.
        """
        self._check_ids()
        return IdMap.read(self.id_kind, self.num_rows, self.path, ID_MAP, self.manifest.arrays)

    def _check_ids(self) -> None:
        for array in self._id_arrays.values():
            array.verify()

    def to_node(self, ids: ExternalIds) -> tuple[NodeIds, npt.NDArray[np.bool_]]:
        """Return the dense ids [Q] int64 of external ids, and a found mask [Q]; -1 stands for what was not found.

        Args:
            ids: A sequence of int or str; text such as "17" is a number where the table's ids are integers.

        Raises:
            CorruptError: The ids are not as they were written.
        """
        return self.ids.to_node(ids)

    def take(self, node: NodeIds) -> npt.NDArray[Any]:
        """Return the vectors [Q, dim] of dense ids ``node`` [Q], in the table's dtype.

        Raises:
            CorruptError: A chunk that holds one of them is not as it was written.
        """
        chunk = np.unique(node // self.vectors.spec.chunk_rows)
        for index in chunk[~self._checked[chunk]]:
            self.vectors.read_chunks(int(index))
            self._checked[index] = True
        return self._rows[node]

    def lookup(self, ids: ExternalIds) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
        """Return the vectors [Q, dim] of external ids and a found mask [Q]; what was not found is all zeros."""
        node, found = self.to_node(ids)
        vectors = np.zeros((node.shape[0], self.dim), self.dtype)
        vectors[found] = self.take(node[found])
        return vectors, found

    def blocks(self, block_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield (first node, vectors [*, dim]) from front to back, about ``block_bytes`` at a time, by direct reads.

        Raises:
            CorruptError: A chunk is not as it was written.
        """
        return self.vectors.checked_blocks(max(1, block_bytes // self.vectors.spec.row_nbytes))

    @property
    def made_at(self) -> datetime:
        """When the table was written here, in UTC: the time of its manifest's file, which plain copies do not keep."""
        manifest = self.path / MANIFEST_NAME
        with disk_errors("read", manifest):
            return datetime.fromtimestamp(manifest.stat().st_mtime, UTC)

    def export_parquet(
        self,
        path: Path,
        *,
        shape: ParquetShape | None = None,
        overwrite: bool = False,
        progress: Progress = SILENT,
    ) -> None:
        """Write the table as Parquet; see :func:`graphsys.storage.export.export_parquet`.

        Args:
            shape: What feature stores load by default, with the time at which the table was made.
        """
        shape = shape or ParquetShape(event_time=self.made_at, created=datetime.now(UTC))
        content = {name: getattr(self, name) for name in ("version", "fingerprint", "dim", "node_type", "layer")}
        metadata = {f"graphsys.{name}": str(value) for name, value in (content | self.manifest.parents).items()}
        ids = self._id_column()
        export_parquet(path, self.vectors, ids, shape=shape, metadata=metadata, overwrite=overwrite, progress=progress)

    def export_npy(self, path: Path, *, overwrite: bool = False, progress: Progress = SILENT) -> Path | None:
        """Write the table as ``.npy``; see :func:`graphsys.storage.export.export_npy`."""
        return export_npy(path, self.vectors, self._id_column(), overwrite=overwrite, progress=progress)

    def _id_column(self) -> IdColumn:
        self._check_ids()
        return IdColumn(kind=self.id_kind, num_rows=self.num_rows, arrays=self._id_arrays)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOrigin:
    """What a table is made from."""

    store: Store
    node_type: str
    checkpoint: str  # fingerprint
    layer: int  # counted from 1
    config: Mapping[str, Any]  # the settings that decide the vectors


def write_table(
    path: Path,
    blocks: Iterable[npt.NDArray[np.float32]],
    *,
    origin: TableOrigin,
    dim: int,
    dtype: str = "float32",
    overwrite: bool = False,
    buffer_bytes: int = MOST_BUFFER_BYTES,
) -> EmbeddingTable:
    """Write a table of one vector per node of the store's node type; it appears whole or not at all.

    Args:
        blocks: Vectors [*, dim] of all nodes in the order of their dense ids.
        dtype: ``float32`` or ``float16``.
        overwrite: Replace what lies at ``path``.
        buffer_bytes: Size of each of the two buffers that the table is written through.

    Raises:
        ArtefactError: The blocks hold another number of rows than the node type has.
        InputError: A value lies beyond float16.
        DiskError: ``path`` exists, or the system refused; ``path`` is as it was.
    """
    info = origin.store.node_types[origin.node_type]
    with atomic_folder(path, overwrite=overwrite) as partial:
        arrays = {VECTORS: _write_vectors(partial / VECTORS, blocks, dim, dtype, buffer_bytes)}
        if arrays[VECTORS].shape[0] != info.num_nodes:
            raise ArtefactError(
                f"{path}: {arrays[VECTORS].shape[0]} vectors came for {info.num_nodes} nodes of type "
                f"'{origin.node_type}'"
            )
        arrays |= _copy_id_map(origin.store, origin.node_type, partial, buffer_bytes)
        parents = {"store": origin.store.fingerprint, "checkpoint": origin.checkpoint}
        content = {
            "dim": dim,
            "dtype": dtype,
            "num_rows": info.num_nodes,
            "node_type": origin.node_type,
            "layer": origin.layer,
            "id_kind": info.id_kind,
        }
        content["version"] = fingerprint(
            {"content": content, "parents": parents, "arrays": {name: spec.as_dict() for name, spec in arrays.items()}}
        )[:12]
        files = write_groups(partial, arrays, content)
        config = dict(origin.config)
        manifest = Manifest(kind=KIND, config=config, parents=parents, content=content, arrays=arrays, files=files)
        write_manifest(partial, manifest)
    return EmbeddingTable.open(path)


def _write_vectors(
    folder: Path, blocks: Iterable[npt.NDArray[np.float32]], dim: int, dtype: str, buffer_bytes: int
) -> FlatSpec:
    writer = FlatWriter(folder, dtype, (dim,), buffer_bytes=buffer_bytes)
    try:
        for block in blocks:
            writer.append(block if dtype == "float32" else _narrow(block, writer.num_rows, dtype))
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def _narrow(block: npt.NDArray[np.float32], first: int, dtype: str) -> npt.NDArray[Any]:
    with np.errstate(over="ignore", under="ignore"):  # overflow is reported below, by node
        narrowed = block.astype(dtype)
    lost = np.isinf(narrowed) & np.isfinite(block)
    if lost.any():
        row, column = np.argwhere(lost)[0]
        value = f"value {column} of node {first + row}"
        raise InputError(f"{value} is {block[row, column]:g}, beyond {dtype}; set embed.dtype to float32")
    return narrowed


def _copy_id_map(store: Store, node_type: str, folder: Path, buffer_bytes: int) -> dict[str, FlatSpec]:
    return {
        f"{ID_MAP}/{Path(name).name}": _copy_array(store.array(name), folder / ID_MAP / Path(name).name, buffer_bytes)
        for name in store.id_arrays(node_type)
    }


def _copy_array(source: FlatArray, folder: Path, buffer_bytes: int) -> FlatSpec:
    writer = FlatWriter(folder, source.spec.dtype, source.spec.row_shape, buffer_bytes=buffer_bytes)
    step = max(1, buffer_bytes // source.spec.row_nbytes)
    try:
        for _, rows in read_blocks(source, cut_rows(0, source.shape[0], step), block_rows=step):
            writer.append(rows)
        return writer.close()
    except BaseException:
        writer.abort()
        raise
