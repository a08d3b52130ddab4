"""The network behind a table, where its run is known and can be used."""

from typing import TYPE_CHECKING

from graphsys.core.errors import GraphsysError
from graphsys.core.progress import SILENT, Progress
from graphsys.deploy.serving.table_run import TableRun
from graphsys.storage.embeddings import EmbeddingTable

if TYPE_CHECKING:
    from graphsys.trainers.inductive import InductiveModel

_NEXT = "start the server with --run RUN.yaml, the run that made the table"


def find_model(
    table: EmbeddingTable, run: TableRun | None, *, is_named: bool, progress: Progress = SILENT
) -> "tuple[InductiveModel | None, str]":
    """Return the network that made ``table``; or None, and why there is none and what to do.

    Args:
        run: Behind the table; None: there is none of use.
        is_named: Whether the user named it; then a fault is an error, where else it is a reason.

    Raises:
        GraphsysError: The run that the user named cannot be used.
    """
    if run is None:
        return None, f"{table.path} lies in no folder of the run that made it; {_NEXT}"
    # torch takes seconds to load, and a table without a network does not need it.
    from graphsys.trainers.inductive import open_inductive

    try:
        return open_inductive(run.run, table, progress), ""
    except GraphsysError as error:
        if is_named:
            raise
        progress.message(f"{table.path} is served without its network: {error}")
        return None, f"{error}. Or {_NEXT}"
