"""Adds the messages of a block of sources to the sums of their destinations, in an order that no thread changes.

Each thread takes a run of destinations, and the edges of a destination stand in a fixed order, so the bits of a sum do
not depend on the number of threads. The messages that one block sends to a destination are added up first: with a
million in-edges, sums of sums lose far fewer digits than one long sum.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np

from graphsys.core.types import Features, NodeIds
from graphsys.storage.jit import njit
from graphsys.trainers.edge_ranges import Sources, Targets

_LEAST_EDGES = 1024  # for a thread; fewer are not worth waking it


class Accumulator:
    """Runs the kernels on ``threads`` threads."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="graphsys-accumulate")

    def add(self, message: Features, source: Sources, target: Targets, total: Features) -> None:
        """Add ``message[source[e]]`` to ``total[target[e]]`` for every edge e.

        Args:
            message: [S, M].
            source: [E] rows of ``message``.
            target: [E] rows of ``total``, ascending.
            total: [n, M]; changed in place.
        """
        self._share(target, lambda edges: _add(message, source[edges], target[edges], total))

    def attend(
        self, message: Features, source: Sources, target: Targets, state: Features, *, heads: int, slope: float
    ) -> None:
        """Add values weighed by ``exp(leaky_relu(key[source[e]] + query[target[e]]))``, and the weights themselves.

        Both sums stand relative to the largest exponent so far, the peak, and are rescaled when it grows.

        Args:
            message: [S, M + H] values, head h in the columns [h * M / H, (h + 1) * M / H), then one key per head.
            source: [E] rows of ``message``.
            target: [E] rows of ``state``, ascending.
            state: [n, M + 3 H] sums of values, sums of weights, peaks, and queries; changed in place.
            heads: H.
            slope: Of the leaky rectifier below zero.

        Source:
            Milakov, Gimelshein 2018, algorithm 3 (arXiv:1805.02867).
        """
        low = np.float32(slope)
        self._share(target, lambda edges: _attend(message, source[edges], target[edges], state, heads, low))

    def _share(self, target: Targets, work: Callable[[slice], None]) -> None:
        cuts = _cuts(target, self._threads)
        tasks = [self._pool.submit(work, slice(start, stop)) for start, stop in pairwise(cuts)]
        wait(tasks)
        for task in tasks:
            task.result()

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _cuts(target: Targets, threads: int) -> list[int]:
    """Return where the edges are cut into about equal parts, no destination being in two."""
    parts = max(1, min(threads, target.shape[0] // _LEAST_EDGES))
    inner = target[[target.shape[0] * part // parts for part in range(1, parts)]]
    starts: NodeIds = np.searchsorted(target, inner)
    return [0, *starts.tolist(), target.shape[0]]


@njit
def _run_end(target: Targets, start: int) -> int:
    """Return the first edge behind ``start`` that has another target."""
    end = start + 1
    while end < target.shape[0] and target[end] == target[start]:
        end += 1
    return end


@njit
def _add(message: Features, source: Sources, target: Targets, total: Features) -> None:
    part = np.empty(message.shape[1], np.float32)
    start = 0
    while start < target.shape[0]:
        end = _run_end(target, start)
        row, first = target[start], source[start]
        if end == start + 1:
            for column in range(part.shape[0]):
                total[row, column] += message[first, column]
        else:
            for column in range(part.shape[0]):
                part[column] = message[first, column]
            for edge in range(start + 1, end):
                node = source[edge]
                for column in range(part.shape[0]):
                    part[column] += message[node, column]
            for column in range(part.shape[0]):
                total[row, column] += part[column]
        start = end


@njit
def _attend(
    message: Features, source: Sources, target: Targets, state: Features, heads: int, slope: np.float32
) -> None:
    width = message.shape[1] - heads
    part = np.empty(width + 2 * heads, np.float32)  # as the front of a row of the state
    start = 0
    while start < target.shape[0]:
        end = _run_end(target, start)
        row = state[target[start]]
        if end == start + 1:
            _attend_one(message[source[start]], row, heads, slope)
        else:
            _attend_run(message, source[start:end], row, heads, slope, part)
            _merge(part, row, heads)
        start = end


@njit
def _attend_one(message: Features, row: Features, heads: int, slope: np.float32) -> None:
    """Add one weighed value to a row of the state."""
    width = message.shape[0] - heads
    channels = width // heads
    for head in range(heads):
        weight, peak = width + head, width + heads + head
        exponent = _leaky(message[width + head] + row[peak + heads], slope)
        total = row[head * channels : (head + 1) * channels]
        value = message[head * channels : (head + 1) * channels]
        if exponent <= row[peak]:
            share = math.exp(exponent - row[peak])
            row[weight] += share
            for column in range(channels):
                total[column] += share * value[column]
        else:
            kept = math.exp(row[peak] - exponent)
            row[weight] = row[weight] * kept + np.float32(1)
            row[peak] = exponent
            for column in range(channels):
                total[column] = total[column] * kept + value[column]


@njit
def _attend_run(
    message: Features, source: Sources, row: Features, heads: int, slope: np.float32, part: Features
) -> None:
    """Write the weighed sums over the edges of one destination, their weights and their peaks into ``part``."""
    width = message.shape[1] - heads
    channels = width // heads
    part[:] = np.float32(0)
    for head in range(heads):
        key, weight, peak = width + head, width + head, width + heads + head
        query = row[peak + heads]
        part[peak] = _leaky(message[source[0], key] + query, slope)
        for edge in range(1, source.shape[0]):
            part[peak] = max(part[peak], _leaky(message[source[edge], key] + query, slope))
        for edge in range(source.shape[0]):
            node = source[edge]
            share = math.exp(_leaky(message[node, key] + query, slope) - part[peak])
            part[weight] += share
            for column in range(head * channels, (head + 1) * channels):
                part[column] += share * message[node, column]


@njit
def _merge(part: Features, row: Features, heads: int) -> None:
    """Add sums relative to one peak to sums relative to another; the result is relative to the larger one."""
    width = part.shape[0] - 2 * heads
    channels = width // heads
    for head in range(heads):
        weight, peak = width + head, width + heads + head
        top = max(part[peak], row[peak])
        kept, added = math.exp(row[peak] - top), math.exp(part[peak] - top)
        row[weight] = row[weight] * kept + part[weight] * added
        row[peak] = top
        for column in range(head * channels, (head + 1) * channels):
            row[column] = row[column] * kept + part[column] * added


@njit
def _leaky(exponent: np.float32, slope: np.float32) -> np.float32:
    return exponent if exponent >= np.float32(0) else exponent * slope
