"""Small window files with every kind of content."""

from pathlib import Path

import numpy as np

from graphsys.core.types import Array, BatchResidency, SampledBatch
from graphsys.storage.direct import Bytes
from graphsys.storage.window import WindowBatch, WindowHeader, WindowWriter

FINGERPRINT = "0123456789abcdef" * 2
ROW_NBYTES = 256
NUM_SLOTS = 600
INITIAL_SLOTS = np.arange(NUM_SLOTS) - 1
FINAL_SLOTS = np.arange(NUM_SLOTS) * 2


def header(num_batches: int, *, residency: bool = True, rows: bool = True, num_hops: int = 2) -> WindowHeader:
    """Return the header of a window of ``num_batches`` batches at positions 30 and on."""
    return WindowHeader(
        window_index=3,
        first_position=30,
        num_batches=num_batches,
        num_hops=num_hops,
        fingerprint=FINGERPRINT,
        dim=60 if rows else 0,
        codec="float32" if rows else "",
        row_nbytes=ROW_NBYTES if rows else 0,
        num_slots=NUM_SLOTS if residency else 0,
        has_residency=residency,
        has_rows=rows,
    )


def sampled_batch(batch_id: int, *, num_seeds: int = 5, with_degree: bool = True) -> SampledBatch:
    """Return two hops in which node i of the batch has two in-edges, from nodes 2i + 1 and 2i + 2."""
    counts = (num_seeds, num_seeds + 2, 2 * num_seeds + 4)
    num_dst = counts[0] + counts[1]
    num_nodes = sum(counts)
    return SampledBatch(
        epoch=2,
        batch_id=batch_id,
        node=1000 * batch_id + np.arange(num_nodes),
        indptr=(2 * np.arange(num_dst + 1)).astype(np.int32),
        indices=(np.arange(2 * num_dst) % num_nodes).astype(np.int32),
        num_sampled_nodes=counts,
        num_sampled_edges=(2 * counts[0], 2 * counts[1]),
        in_degree=(7 * np.arange(num_nodes)).astype(np.int32) if with_degree else None,
    )


def residency_of(sampled: SampledBatch) -> BatchResidency:
    """Return a plan in which every third node comes from the cache and every other fetched row enters it."""
    cached = np.arange(sampled.num_nodes) % 3 == 0
    source = np.empty(sampled.num_nodes, np.int32)
    source[cached] = ~np.arange(cached.sum())
    source[~cached] = np.arange((~cached).sum())
    fetch_node = sampled.node[~cached]
    insert_row = np.arange(0, len(fetch_node), 2, dtype=np.int32)
    return BatchResidency(
        source=source, fetch_node=fetch_node, insert_row=insert_row, insert_slot=(insert_row + 100).astype(np.int32)
    )


def rows_of(residency: BatchResidency) -> Bytes:
    """Return encoded rows whose bytes follow from the node they belong to."""
    pattern = residency.fetch_node[:, None] * 31 + np.arange(ROW_NBYTES)
    return (pattern % 251).astype(np.uint8)


def packed_batches(num_batches: int, *, y: Array | None = None) -> list[WindowBatch]:
    """Return batches of different sizes with residency and rows."""
    batches = []
    for batch_id in range(num_batches):
        sampled = sampled_batch(batch_id, num_seeds=5 + 20 * batch_id)
        residency = residency_of(sampled)
        labels = np.arange(sampled.batch_size) * 10 if y is None else y
        batches.append(WindowBatch(sampled=sampled, y=labels, residency=residency, rows=rows_of(residency)))
    return batches


def write_packed(path: Path, num_batches: int = 3) -> list[WindowBatch]:
    """Write a window with everything in it; return what it holds."""
    batches = packed_batches(num_batches)
    with WindowWriter(path, header=header(num_batches)) as writer:
        for batch in batches:
            writer.add(batch.sampled, y=batch.y, residency=batch.residency, rows=batch.rows)
        writer.close(INITIAL_SLOTS, FINAL_SLOTS)
    return batches


def same_arrays(left: object, right: object) -> bool:
    """Whether two dataclasses of arrays, or two arrays, agree in every value and type; None equals None."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and bool(np.array_equal(left, right))
    fields = getattr(left, "__slots__", None)
    if not fields or type(left) is not type(right):
        return left == right
    return all(same_arrays(getattr(left, name), getattr(right, name)) for name in fields)
