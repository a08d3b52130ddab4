"""Exact embeddings of all nodes as a table that is looked up by external id."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphsys.core.config import RunConfig
from graphsys.core.errors import StaleArtefactError
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress, task
from graphsys.core.types import Features
from graphsys.storage.direct_writer import MOST_BUFFER_BYTES
from graphsys.storage.embeddings import KIND, EmbeddingTable, TableOrigin, write_table
from graphsys.storage.files import refuse_inside_artefact
from graphsys.storage.flat import FlatArray
from graphsys.storage.manifest import check_replaceable, read_manifest
from graphsys.trainers.inference import Trained, infer, open_trained
from graphsys.trainers.run_folder import RunFolder, differing_keys
from graphsys.trainers.store_arrays import check_trained_store, embedding_arrays

_BUFFER_SHARE = 64  # of the memory budget, as a divisor: a buffer of vectors that are read or written


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedResult:
    """A table and what it cost."""

    table: EmbeddingTable
    check: StageReport  # of the store's arrays
    report: StageReport

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        reports = {"check": self.check.as_dict(), "report": self.report.as_dict()}
        return {"path": str(self.table.path), **self.table.manifest.content, **reports}


def embed(
    run: RunConfig, out: Path | None = None, progress: Progress = SILENT, *, overwrite: bool = False
) -> EmbedResult:
    """Write the vectors that the run's final checkpoint gives all nodes; a table that is up to date stays as it is.

    Args:
        out: Where to; None: ``embeddings.gs`` in the run's folder.
        overwrite: Replace what lies at ``out``, made from whatever.

    Raises:
        ArtefactError: The store or a finished training is missing, or ``out`` holds something else.
        StaleArtefactError: The training used another store or other settings, or the table at ``out`` was made from
            another store, checkpoint or config.
        CorruptError: An array of the store, or the layer, is not as it was written.
        InputError: A value lies beyond float16.
        MemoryBudgetError: The budget is too small for exact inference.
    """
    path = out or RunFolder(run.out).embeddings
    refuse_inside_artefact(path)
    trained = open_trained(run)
    layer = run.num_layers if run.embed.layer == "last" else run.embed.layer
    config = {"layer": layer, "dtype": run.embed.dtype}
    if overwrite:
        check_replaceable(path, KIND)
    elif path.exists() and _is_current(path, trained, config):
        check, report = (StageReport(name=name, skipped=True) for name in ("check", "embed"))
        return EmbedResult(table=EmbeddingTable.open(path), check=check, report=report)
    check = check_trained_store(run, trained.store, embedding_arrays(trained.store, trained.node_type), progress)
    with measure("embed") as report:
        inference = infer(trained, progress, upto=layer)
        origin = TableOrigin(
            store=trained.store,
            node_type=trained.node_type,
            checkpoint=trained.checkpoint.fingerprint,
            layer=layer,
            config=config,
        )
        table = _write(path, inference.layer(layer), origin, run, progress, overwrite=overwrite)
        report.useful_bytes = inference.report.useful_bytes + table.vectors.spec.nbytes
        report.details = {"inference": inference.report.as_dict()}
    return EmbedResult(table=table, check=check, report=report)


def _is_current(path: Path, trained: Trained, config: dict[str, Any]) -> bool:
    manifest = read_manifest(path, KIND)
    wanted = {"made from": trained.parents, "embed": config}
    changed = differing_keys({"made from": manifest.parents, "embed": manifest.config}, wanted)
    if changed:
        raise StaleArtefactError(
            f"{path} was made otherwise ({'; '.join(changed)}); choose another --out, or pass --overwrite to replace it"
        )
    return True


def _write(
    path: Path, rows: FlatArray, origin: TableOrigin, run: RunConfig, progress: Progress, *, overwrite: bool
) -> EmbeddingTable:
    nbytes = min(MOST_BUFFER_BYTES, run.memory // _BUFFER_SHARE)
    step = max(1, nbytes // rows.spec.row_nbytes)
    with task(progress, "write embeddings", rows.shape[0], "rows") as work:

        def vectors() -> Iterator[Features]:
            for _, block in rows.checked_blocks(step):
                yield block
                work.advance(block.shape[0])

        return write_table(
            path,
            vectors(),
            origin=origin,
            dim=rows.shape[1],
            dtype=run.embed.dtype,
            overwrite=overwrite,
            buffer_bytes=nbytes,
        )
