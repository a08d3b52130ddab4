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
    part = np.empty((1, width + 2 * heads), np.float32)  # as the front of a row of the state
    start = 0
    while start < target.shape[0]:
        end = _run_end(target, start)
        if end == start + 1:
            _attend_one(message, source[start], state, target[start], heads, slope)
        else:
            _attend_run(message, source, start, end, state, target[start], heads, slope, part)
            _merge(part, state, target[start], heads)
        start = end


@njit
def _attend_one(message: Features, node: int, state: Features, row: int, heads: int, slope: np.float32) -> None:
    """Add one weighed value to a row of the state."""
    width = message.shape[1] - heads
    channels = width // heads
    for head in range(heads):
        weight, peak, first = width + head, width + heads + head, np.uintp(head * channels)
        exponent = _leaky(message[node, width + head] + state[row, peak + heads], slope)
        if exponent <= state[row, peak]:
            share = math.exp(exponent - state[row, peak])
            state[row, weight] += share
            for channel in range(channels):
                column = first + np.uintp(channel)
                state[row, column] += share * message[node, column]
        else:
            kept = math.exp(state[row, peak] - exponent)
            state[row, weight] = state[row, weight] * kept + np.float32(1)
            state[row, peak] = exponent
            for channel in range(channels):
                column = first + np.uintp(channel)
                state[row, column] = state[row, column] * kept + message[node, column]


@njit
def _attend_run(
    message: Features,
    source: Sources,
    start: int,
    end: int,
    state: Features,
    row: int,
    heads: int,
    slope: np.float32,
    part: Features,
) -> None:
    """Write the weighed sums over edges [start, end), their weights and their peaks into ``part`` [1, M + 2 H]."""
    width = message.shape[1] - heads
    channels = width // heads
    part[:] = np.float32(0)
    for head in range(heads):
        key, weight, peak, first = width + head, width + head, width + heads + head, np.uintp(head * channels)
        query = state[row, peak + heads]
        top = _leaky(message[source[start], key] + query, slope)
        for edge in range(start + 1, end):
            top = max(top, _leaky(message[source[edge], key] + query, slope))
        for edge in range(start, end):
            node = source[edge]
            share = math.exp(_leaky(message[node, key] + query, slope) - top)
            part[0, weight] += share
            for channel in range(channels):
                column = first + np.uintp(channel)
                part[0, column] += share * message[node, column]
        part[0, peak] = top


@njit
def _merge(part: Features, state: Features, row: int, heads: int) -> None:
    """Add sums relative to one peak to sums relative to another; the result is relative to the larger one."""
    width = part.shape[1] - 2 * heads
    channels = width // heads
    for head in range(heads):
        weight, peak, first = width + head, width + heads + head, np.uintp(head * channels)
        top = max(part[0, peak], state[row, peak])
        kept, added = math.exp(state[row, peak] - top), math.exp(part[0, peak] - top)
        state[row, weight] = state[row, weight] * kept + part[0, weight] * added
        state[row, peak] = top
        for channel in range(channels):
            column = first + np.uintp(channel)
            state[row, column] = state[row, column] * kept + part[0, column] * added


@njit
def _leaky(exponent: np.float32, slope: np.float32) -> np.float32:
    return exponent if exponent >= np.float32(0) else exponent * slope
