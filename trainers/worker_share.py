"""What one of several workers on this machine has of it: cores and the disk."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from graphsys.core.config import RunConfig
from graphsys.storage.disk_speed import DiskSpeed
from graphsys.trainers.engine_speed import EngineSpeed


def workers_here(run: RunConfig) -> int:
    """Return how many workers of a run share this machine; one where they run on another cluster."""
    return run.cluster.num_workers if run.cluster.address == "local" else 1


@contextmanager
def as_one_of(workers: int) -> Iterator[None]:
    """Let the block, and the threads and processes that it starts, use an even share of this process's cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[: max(1, len(cores) // workers)])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def share_of_disk(disk: DiskSpeed, workers: int) -> DiskSpeed:
    """Return the speeds that are left to each of several workers that use the disk at once."""
    return replace(
        disk,
        read_bytes_s=disk.read_bytes_s / workers,
        write_bytes_s=disk.write_bytes_s / workers,
        random_reads_s=disk.random_reads_s / workers,
    )


def share_of_engine(engine: EngineSpeed, workers: int) -> EngineSpeed:
    """Return the speed of packing that is left to each of several workers, which share the disk and its buffers."""
    return replace(engine, pack_bytes_s=engine.pack_bytes_s / workers, byte_s=engine.byte_s * workers)
