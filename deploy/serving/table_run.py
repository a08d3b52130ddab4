"""The run behind a table: given by its file, or found in the folder where the table lies."""

from dataclasses import dataclass
from pathlib import Path

from graphsys.core.config import RunConfig, load_run
from graphsys.core.errors import ArtefactError, ConfigError, DiskError, StaleArtefactError
from graphsys.core.progress import SILENT, Progress
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.run_file import RUN_FILE_NAME
from graphsys.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRun:
    """A run, and the store it used, which is the one the table was made from."""

    path: Path  # of the run file
    run: RunConfig
    store: Store


def find_run(table: EmbeddingTable, given: Path | None, progress: Progress = SILENT) -> TableRun | None:
    """Return the run behind ``table``; None where there is none to be found, and a message where it is of no use.

    Args:
        given: The run file that the user named; None looks into the table's folder, where a run leaves its own.

    Raises:
        GraphsysError: The run that the user named cannot be used, or did not make this table.
    """
    path = given or table.path.absolute().parent / RUN_FILE_NAME
    if given is None and not path.is_file():
        progress.message(
            f"{table.path} is served without the run that made it, as none lies beside it; "
            f"--run RUN.yaml names it, for predictions and new nodes"
        )
        return None
    try:
        run = load_run(path)
        return TableRun(path=path, run=run, store=_store_of(table, run, path))
    except (ConfigError, ArtefactError, DiskError) as error:
        if given is not None:
            raise
        progress.message(f"{error}. {table.path.name} is served without its run")
        return None


def _store_of(table: EmbeddingTable, run: RunConfig, path: Path) -> Store:
    store = Store.open(run.store)  # relative to where the program was started, as for every other command
    if table.manifest.parents.get("store") != store.fingerprint:
        raise StaleArtefactError(f"{path} names the store {store.path}, but {table.path} was made from another one")
    return store
