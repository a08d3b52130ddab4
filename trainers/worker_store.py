"""Where a worker of a training reads its store: in place, or from its machine's own copy."""

from pathlib import Path

from graphsys.core.config import RunConfig
from graphsys.core.progress import Progress
from graphsys.storage.store_copy import local_copy


def worker_store(run: RunConfig, progress: Progress) -> Path:
    """Return the path of the store that a worker on this machine reads; makes ``cluster.store_cache``'s copy of it.

    Raises:
        ArtefactError, CorruptError, DiskError: As :func:`graphsys.storage.store_copy.local_copy`.
    """
    cache = run.cluster.store_cache
    if cache is None:
        return run.store
    return local_copy(run.store, cache, limit_s=run.cluster.timeout, memory=run.memory, progress=progress)
