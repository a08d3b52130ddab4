"""Which arrays of a store a stage uses, and the check of them that the run's folder remembers."""

from collections.abc import Iterable

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport
from graphsys.core.progress import Progress
from graphsys.storage.files import claimed_folder
from graphsys.storage.store import Store
from graphsys.storage.store_check import StoreCheck, check_store
from graphsys.trainers.run_folder import RunFolder


def training_arrays(store: Store, node_type: str, *, features: bool = True) -> list[str]:
    """Return the names of the arrays that training on ``node_type`` and its exact evaluation use.

    Args:
        features: False leaves out the features, as sampling does.
    """
    base = f"nodes/{node_type}"
    optional = [f"{base}/y", f"{base}/split", *([f"{base}/x"] if features else [])]
    return [*store.topology_arrays(store.edge_type_within(node_type)), *filter(store.has, optional)]


def inference_arrays(store: Store, node_type: str) -> list[str]:
    """Return the names of the arrays that exact inference over ``node_type`` uses."""
    return [*store.topology_arrays(store.edge_type_within(node_type)), f"nodes/{node_type}/x"]


def embedding_arrays(store: Store, node_type: str) -> list[str]:
    """Return the names of the arrays that a training and an embedding table of ``node_type`` are made from."""
    return [*training_arrays(store, node_type), *store.id_arrays(node_type)]


def check_arrays(run: RunConfig, store: Store, names: Iterable[str], progress: Progress) -> StoreCheck:
    """Make sure that arrays are as they were written; those that the run's folder remembers are not read again.

    Nothing is written: whoever holds the folder's claim should let the check remember itself at
    ``RunFolder.store_checked``, once nothing else speaks against the run.

    Raises:
        CorruptError: One is not; the message names file, chunk and offset.
    """
    record = RunFolder(run.out).store_checked
    return check_store(store, names, record=record, memory=run.memory, progress=progress)


def check_trained_store(run: RunConfig, store: Store, names: Iterable[str], progress: Progress) -> StageReport:
    """As :func:`check_arrays`, for a run that was trained, and remember the check in its folder.

    Raises:
        CorruptError: An array is not as it was written.
        DiskError: Another process is writing to the folder.
    """
    with claimed_folder(run.out):
        check = check_arrays(run, store, names, progress)
        check.remember(RunFolder(run.out).store_checked)
    return check.report
