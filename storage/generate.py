"""Writes a generated graph as raw files that ``graphsys import`` takes; any size, in bounded memory.

Layout: ``graph.json`` (what was asked for), ``edges/part-00000.parquet`` (src, dst int64), ``x.npy`` [N, D] float32,
``y.npy`` [N] int64 classes and ``split.npy`` [N] uint8 (0 none, 1 train, 2 val, 3 test). Blocks are made by a pool of
threads and written in order, so the bytes depend on the spec alone.
"""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from graphsys.core.errors import ArtefactError, MemoryBudgetError
from graphsys.core.metrics import measure
from graphsys.core.progress import SILENT, Progress, Task, task
from graphsys.core.types import Array
from graphsys.core.units import GIB, MIB, format_bytes
from graphsys.storage.community_graph import (
    CommunityGraph,
    GenerateSpec,
    community_graph,
    fill_edges,
    fill_features,
    fill_labels,
    fill_split,
)
from graphsys.storage.files import SequentialWriter, atomic_folder, disk_errors, drop_cache, folder_bytes

DESCRIPTION = "graph.json"
FORMAT = "graphsys.raw"
VERSION = 1
EDGES_PER_GROUP = 1 << 19
EDGES_PER_PART = 1 << 22
_SCHEMA = pa.schema([pa.field("src", pa.int64(), nullable=False), pa.field("dst", pa.int64(), nullable=False)])
_EDGE_NBYTES = 16
_GROUP_COPIES = 4  # a group as arrays, as Arrow's encoded pages, and what its writer keeps of both
_MOST_BLOCK_NBYTES = 8 * MIB

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Budget:
    """How many threads work, and how many nodes one block of theirs holds."""

    threads: int
    block_nodes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is made, and by whom."""

    spec: GenerateSpec
    graph: CommunityGraph
    budget: _Budget
    pool: ThreadPoolExecutor

    def in_order(self, make: Callable[[int], Made], firsts: range, in_flight: int) -> Iterator[Made]:
        """Yield ``make(first)`` in the order of ``firsts``; at most ``in_flight`` are being made or waiting."""
        waiting: deque[Future[Made]] = deque()
        try:
            for first in firsts:
                waiting.append(self.pool.submit(make, first))
                if len(waiting) == in_flight:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def generate(
    out: Path,
    spec: GenerateSpec,
    *,
    overwrite: bool = False,
    memory: int = GIB,
    threads: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Write the graph of ``spec`` into the folder ``out``, whole or not at all; return what was written and its cost.

    Args:
        overwrite: Replace an existing ``out``.
        memory: Most bytes that blocks in flight may take; never changes the files.
        threads: 0: one per core; fewer where ``memory`` asks for it; never changes the files.

    Raises:
        MemoryBudgetError: ``memory`` does not hold one block.
        DiskError: ``out`` exists, or the system refused; nothing is left behind.
    """
    if overwrite:
        _check_replaceable(out)
    budget = _budget(spec, memory, threads or os.cpu_count() or 1)
    description = _description(spec)
    with measure("generate") as report, atomic_folder(out, overwrite=overwrite) as folder:
        with ThreadPoolExecutor(budget.threads, thread_name_prefix="graphsys-generate") as pool:
            job = _Job(spec=spec, graph=community_graph(spec), budget=budget, pool=pool)
            with task(progress, "generate edges", spec.edges, "edges") as work:
                _write_edges(folder / "edges", job, work)
            with task(progress, "generate nodes", spec.nodes, "nodes") as work:
                _write_nodes(folder, job, work)
        with disk_errors("write", out):
            (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    report.useful_bytes = folder_bytes(out)
    return {"path": str(out), **description, "nbytes": report.useful_bytes, "stage": report.as_dict()}


def _check_replaceable(out: Path) -> None:
    with disk_errors("read", out):
        if not out.exists() or (out.is_dir() and not any(out.iterdir())):
            return
        description = out / DESCRIPTION
        if not description.is_file() or f'"format": "{FORMAT}"'.encode() not in description.read_bytes():
            raise ArtefactError(
                f"{out} is not a generated graph; --overwrite replaces generated graphs only, so choose another --out"
            )


def _description(spec: GenerateSpec) -> dict[str, Any]:
    train, val, test = spec.shares
    values = {**asdict(spec), "communities": spec.num_communities, "train": train, "val": val, "test": test}
    return {"format": FORMAT, "version": VERSION, **values}


def _budget(spec: GenerateSpec, memory: int, threads: int) -> _Budget:
    edge_nbytes = _GROUP_COPIES * EDGES_PER_GROUP * _EDGE_NBYTES
    node_nbytes = spec.features * 4 + 16
    least = max(edge_nbytes, 2 * node_nbytes)
    if memory < least:
        raise MemoryBudgetError(
            f"memory is {format_bytes(memory)}, but one block of generated edges or nodes takes "
            f"{format_bytes(least)}; give --memory {-(-least // MIB)}MiB or more"
        )
    threads = min(threads, memory // edge_nbytes)
    # Twice as many blocks as threads are in flight: those being made, and those waiting to be written in order.
    block_nbytes = min(memory // (2 * threads), _MOST_BLOCK_NBYTES)
    return _Budget(threads=threads, block_nodes=max(block_nbytes // node_nbytes, 1))


def _write_edges(folder: Path, job: _Job, work: Task) -> None:
    with disk_errors("write", folder):
        folder.mkdir()

    def write(first: int) -> int:
        count = min(EDGES_PER_PART, job.spec.edges - first)
        _write_part(folder / f"part-{first // EDGES_PER_PART:05d}.parquet", job.graph, first, count)
        return count

    for count in job.in_order(write, range(0, job.spec.edges, EDGES_PER_PART), job.budget.threads):
        work.advance(count)


def _write_part(path: Path, graph: CommunityGraph, first: int, count: int) -> None:
    # Plain pages: ids that look random do not compress, and no codec's version can change the bytes.
    with (
        disk_errors("write", path),
        path.open("wb") as file,
        pq.ParquetWriter(
            file, _SCHEMA, compression="none", use_dictionary=False, write_statistics=True, store_schema=False
        ) as writer,
    ):
        for start in range(first, first + count, EDGES_PER_GROUP):
            size = min(EDGES_PER_GROUP, first + count - start)
            src, dst = np.empty(size, np.int64), np.empty(size, np.int64)
            fill_edges(graph, start, src, dst)
            writer.write_table(pa.Table.from_arrays([pa.array(src), pa.array(dst)], schema=_SCHEMA), size)
            file.flush()
            drop_cache(file.fileno())


def _write_nodes(folder: Path, job: _Job, work: Task) -> None:
    spec, graph, block_nodes = job.spec, job.graph, job.budget.block_nodes

    def make(first: int) -> tuple[Array, Array, Array]:
        size = min(block_nodes, spec.nodes - first)
        x, y, split = np.empty((size, spec.features), np.float32), np.empty(size, np.int64), np.empty(size, np.uint8)
        fill_labels(graph, first, y)
        fill_split(graph, first, split)
        fill_features(graph, first, y, x)
        return x, y, split

    writers = [
        _npy_writer(folder / "x.npy", np.float32, (spec.nodes, spec.features)),
        _npy_writer(folder / "y.npy", np.int64, (spec.nodes,)),
        _npy_writer(folder / "split.npy", np.uint8, (spec.nodes,)),
    ]
    try:
        for arrays in job.in_order(make, range(0, spec.nodes, block_nodes), 2 * job.budget.threads):
            for writer, array in zip(writers, arrays, strict=True):
                writer.write(array)
            work.advance(arrays[0].shape[0])
        for writer in writers:
            writer.close()
    except BaseException:
        for writer in writers:
            writer.abort()
        raise


def _npy_writer(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> SequentialWriter:
    """Open a ``.npy`` file whose rows are appended afterwards."""
    # Spelled out, since numpy may choose another version or padding of the header one day.
    # Source: numpy.lib.format, version 1.0: magic, header length in 2 bytes, header padded to a multiple of 64.
    descr = np.dtype(dtype).newbyteorder("<").str
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(10 + len(header) + 1) % 64) + "\n"
    writer = SequentialWriter(path)
    writer.write(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    return writer
