"""The fewest rows that any cache of a given size reads, counted without simulating a cache."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds


def fewest_reads(batches: Sequence[npt.NDArray[np.integer[Any]]], *, num_nodes: int, num_slots: int) -> int:
    """Return how many rows the batches must read when the cache may hold ``num_slots`` rows between two batches.

    A row used by batch i and next by batch j is an interval from i to j; keeping it saves one read and takes one slot
    at every step between. The most intervals that fit are found by dropping, wherever too many overlap, those that end
    last. Only the number of intervals with the same ends matters, so the rows themselves need no bookkeeping.

    Args:
        batches: [V] distinct ids of each batch.
        num_nodes: ids are below this.
        num_slots: rows that fit.

    Source:
        Faigle and Nawijn 1995, Note on scheduling intervals on-line; for caches the same as Belady 1966 with bypass.
    """
    num_batches = len(batches)
    spans = np.zeros((num_batches, num_batches), np.int64)  # [i, j]: rows used by batch i and next by batch j
    last = np.full(num_nodes, -1, np.int32)
    accesses = 0
    for index, node in enumerate(batches):
        before = last[node]
        spans[:, index] = np.bincount(before[before >= 0], minlength=num_batches)
        last[node] = index
        accesses += node.shape[0]
    return accesses - _most_kept(spans, num_slots)


def _most_kept(spans: NodeIds, num_slots: int) -> int:
    """Return how many of the intervals, ``spans[i, j]`` from i to j, fit when ``num_slots`` may overlap."""
    open_until = np.zeros(spans.shape[0], np.int64)  # intervals kept now, by their end
    kept = 0
    for index in range(spans.shape[0]):
        kept += int(open_until[index])
        open_until[index] = 0
        open_until += spans[index]
        surplus = int(open_until.sum()) - num_slots
        for end in range(spans.shape[0] - 1, index, -1):
            if surplus <= 0:
                break
            dropped = min(surplus, int(open_until[end]))
            open_until[end] -= dropped
            surplus -= dropped
    return kept
