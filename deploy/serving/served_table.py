"""A table that is loaded and checked: every part that a request reads, closed when its last lease ends."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil

from graphsys.core.progress import SILENT, Progress
from graphsys.core.progress import task as open_task
from graphsys.core.types import NodeIds
from graphsys.deploy.serving.find_model import find_model
from graphsys.deploy.serving.index import IndexSettings, SearchIndex, open_index
from graphsys.deploy.serving.map_body import MapBody, encode_map
from graphsys.deploy.serving.map_folder import open_projection
from graphsys.deploy.serving.node_classes import NodeClasses, open_classes
from graphsys.deploy.serving.projection import MapSettings, Projection
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.deploy.serving.table_run import TableRun, find_run
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.files import disk_errors
from graphsys.storage.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from graphsys.trainers.inductive import InductiveModel

Ids = Sequence[int | str] | npt.NDArray[np.int64] | Any  # or a pyarrow array, which has no types


RESIDENT_SHARE = 0.5  # of the memory that is free
_WARM_BYTES = 4 << 20
_MOST = np.iinfo(np.int64).max


class ServedTable:
    """One table in service. Its parts are read by many requests at once, and changed by none.

    Args:
        table: Opened, every checksum compared.
        search: Over the table's vectors.
        resident: Whether its vectors fit into memory beside everything else; if not, a look-up may wait for the disk.
        run: The run behind it, where it is known.
        classes: Of the nodes, where the store knows them.
        projection: The map; None: not served.
        model: The network that made the table; None: it is not at hand.
        no_model: Why it is not, and what to do.
    """

    def __init__(
        self,
        table: EmbeddingTable,
        search: SearchIndex,
        *,
        resident: bool,
        run: TableRun | None = None,
        model: "InductiveModel | None" = None,
        no_model: str = "",
        classes: NodeClasses | None = None,
        projection: Projection | None = None,
    ) -> None:
        self.table = table
        self.search = search
        self.model = model
        self.no_model = no_model
        self.version = table.version
        self.dim = table.dim
        self.num_rows = table.num_rows
        self.vectors: npt.NDArray[Any] = table.vectors.memmap()  # [N, dim] in the table's dtype
        self.resident = resident
        self.classes = classes
        self.projection = projection
        self.map_body: MapBody | None = None
        if projection is not None:
            self.map_body = encode_map(projection, table.ids, classes, table.version)
        told = {"index": search.content, "model": "none" if model is None else str(model.run_folder)}
        self.provenance: Mapping[str, Any] = {**provenance(table, run), **told}

    def lookup(self, ids: Ids) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return the vectors [Q, dim] of external ids and a found mask [Q]; what was not found is all zeros."""
        node, found = self.to_node(ids)
        # take is twice as fast as an index in brackets, and lets other threads work meanwhile.
        if found.all():
            return np.take(self.vectors, node, axis=0).astype(np.float32, copy=False), found
        vectors = np.zeros((node.shape[0], self.dim), np.float32)
        vectors[found] = np.take(self.vectors, node[found], axis=0)
        return vectors, found

    def to_node(self, ids: Ids) -> tuple[NodeIds, npt.NDArray[np.bool_]]:
        """Return the dense ids [Q] of external ids, and a found mask [Q]; -1 stands for what was not found."""
        if not isinstance(ids, list):
            return self.table.to_node(ids)
        if self.table.id_kind == "string":
            return self.table.to_node([str(value) for value in ids])
        integers = [type(value) is int and abs(value) <= _MOST for value in ids]
        if all(integers):
            return self.table.to_node(np.array(ids, np.int64))
        node = np.full(len(ids), -1, np.int64)  # where integers beyond int64 stay
        for chosen in (integers, [type(value) is str for value in ids]):
            wanted = [value for value, hit in zip(ids, chosen, strict=True) if hit]
            node[np.array(chosen)], _ = self.table.to_node(wanted)
        return node, node >= 0

    def close(self) -> None:
        """Let go of every part, so that files are unmapped; the table answers nothing any more."""
        self.search.close()
        if self.model is not None:
            self.model.close()
        del self.table, self.vectors, self.search, self.model
        self.classes = self.projection = self.map_body = None


def open_served(path: Path, settings: ServeSettings, progress: Progress = SILENT) -> ServedTable:
    """Open the table at ``path`` and everything that belongs to it, with every checksum compared.

    Raises:
        ArtefactError: It is not an embedding table, or one of a newer format.
        CorruptError: A byte differs from what was written; the message names file and chunk.
        StaleArtefactError: ``settings.run`` names a run that did not make this table.
        DiskError: An index must be built, and cannot be written beside the table.
    """
    table = EmbeddingTable.open(path)
    nbytes = table.vectors.spec.nbytes
    resident = nbytes < psutil.virtual_memory().available * RESIDENT_SHARE
    with open_task(progress, f"check {path.name}", nbytes, "B") as checking:
        table.vectors.verify(checking)
        if resident:
            _warm(table.vectors.path, nbytes)
    _ = table.ids  # verified when first opened
    run = find_run(table, settings.run, progress)
    classes = None if run is None else open_classes(table, run.store)
    projection = None
    if settings.map_points:
        projection = open_projection(table, MapSettings(points=settings.map_points), progress)
    # The network before the index: a wrong run is refused before anything is built.
    model, no_model = find_model(table, run, is_named=settings.run is not None, progress=progress)
    wanted = IndexSettings(
        metric=settings.metric,
        storage=settings.index_storage,
        threads=settings.search_threads,
        folder=settings.index_folder,
    )
    served = ServedTable(
        table,
        open_index(table, wanted, progress),
        resident=resident,
        run=run,
        model=model,
        no_model=no_model,
        classes=classes,
        projection=projection,
    )
    # The first look-up compiles what strings are found with.
    served.lookup(table.ids.to_external(np.arange(min(1, table.num_rows))))
    return served


def _warm(path: Path, nbytes: int) -> None:
    """Read a file into the page cache, which checking goes past, so that the first look-ups find it there."""
    buffer = bytearray(_WARM_BYTES)
    with disk_errors("read", path), path.open("rb", buffering=0) as file:
        while file.tell() < nbytes and file.readinto(buffer):
            pass


def provenance(table: EmbeddingTable, run: TableRun | None = None) -> dict[str, Any]:
    """Return what a table was made from and when it was written, as plain JSON values."""
    manifest = table.path / MANIFEST_NAME
    with disk_errors("read", manifest):
        written = datetime.fromtimestamp(manifest.stat().st_mtime, UTC)
    found = {} if run is None else {"run": str(run.path), "store": str(run.store.path), "network": run.run.model.name}
    return {
        "written": written.isoformat(timespec="seconds"),
        **found,
        "table": table.fingerprint,
        "parents": dict(table.manifest.parents),
        "layer": table.layer,
        "config": dict(table.manifest.config),
    }
