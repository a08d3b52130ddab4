"""One layer over all nodes as passes over rows: sequential reads only, whatever the graph looks like.

The states of a range of destinations lie in memory while the rows of all sources stream by once. Each block of rows
becomes messages, and the messages go to the states that the range's edges name. The range's own rows stream by as well,
and its outputs are done. Within one range, every edge is read once and every row at most twice.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.progress import Task
from graphsys.core.types import Features, NodeIds
from graphsys.core.units import MIB, format_bytes
from graphsys.storage.direct import aligned_empty
from graphsys.storage.direct_writer import MOST_BUFFER_BYTES, DirectWriter
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray
from graphsys.storage.row_blocks import blocks_nbytes, cut_rows, read_blocks
from graphsys.trainers.accumulate import Accumulator
from graphsys.trainers.edge_ranges import EDGE_NBYTES, MAX_BLOCK_ROWS, START_NBYTES, EdgeRange, RangeReader
from graphsys.trainers.layer_pass import LayerPass
from graphsys.trainers.layerwise import LayerTally

READ_BYTES = 4 * MIB  # of a block of rows
_BUDGET_SHARE = 0.9  # of the memory, for all that is counted here
_BLOCK_SHARE = 8  # of the memory, as a divisor: rows on their way, and what the network makes of them
_WRITE_SHARE = 64  # of the memory, as a divisor: a buffer of the output
_LEAST_EDGES = 1024  # of a range


@dataclass(frozen=True, slots=True, kw_only=True)
class PassLimits:
    """How a layer's passes share the memory; a function of the run's config and the graph's shape."""

    block_rows: int  # rows that are read at a time, a power of two
    range_nbytes: int  # for the states and the edges of a range
    write_buffer: int  # bytes of each buffer of the output
    fixed_nbytes: int  # of blocks of rows on their way, and of the output's buffers

    @classmethod
    def of(cls, memory: int, *, dim: int, width: int, state_nbytes: int) -> "PassLimits":
        """Return the limits within ``memory`` bytes.

        Args:
            dim: Columns of a row of the layer below.
            width: Columns of the widest tensor that the network makes of a row.
            state_nbytes: Of one destination.

        Raises:
            MemoryBudgetError: Not even a few edges fit.
        """
        block_rows = _block_rows(memory // _BLOCK_SHARE, dim, width)
        write_buffer = min(MOST_BUFFER_BYTES, memory // _WRITE_SHARE)
        fixed = _block_nbytes(block_rows, dim, width) + DirectWriter.memory_nbytes(write_buffer)
        left = int(memory * _BUDGET_SHARE) - fixed
        least = state_nbytes + START_NBYTES + _LEAST_EDGES * (EDGE_NBYTES + 8)
        if left < least:
            needed = int((fixed + least) / _BUDGET_SHARE)
            raise MemoryBudgetError(
                f"exact inference of a layer with {dim} input columns needs more than the memory budget of "
                f"{format_bytes(memory)}; set memory to at least {needed // MIB + 1}MiB"
            )
        return cls(block_rows=block_rows, range_nbytes=left, write_buffer=write_buffer, fixed_nbytes=fixed)


def _block_rows(nbytes: int, dim: int, width: int) -> int:
    """Return the largest power of two of rows that make a good read and fit ``nbytes``; at least 1."""
    rows = 1
    while 2 * rows <= MAX_BLOCK_ROWS and 8 * dim * rows <= READ_BYTES and _block_nbytes(2 * rows, dim, width) <= nbytes:
        rows *= 2
    return rows


def _block_nbytes(rows: int, dim: int, width: int) -> int:
    """Return the bytes of blocks of rows on their way, of their degrees, and of what the network makes of one."""
    return blocks_nbytes(4 * dim, rows) + blocks_nbytes(8, rows + 1) + rows * (4 * dim + 16 * width)


def run_passes(
    layer: LayerPass,
    below: FlatArray,
    edges: RangeReader,
    *,
    limits: PassLimits,
    threads: int,
    tally: LayerTally,
    task: Task | None = None,
) -> Iterator[Features]:
    """Yield the outputs [*, D_out] of ``layer`` for all nodes in the order of their ids.

    The bytes depend on the layer, the arrays and ``limits``, not on ``threads``.

    Args:
        below: [N, D_in] float32 outputs of the layer before, or features.
        edges: In-edges of the N nodes.
        threads: Threads that add up messages.
        task: Is advanced by N in all.

    Raises:
        CorruptError: An array is truncated.
        DiskError: The system refused a read.

    Cost:
        The edges are read once; rows are read once per range, and once more. Rows are not kept where they would fit:
        reading them again while the last ones are worked on is cheaper than touching fresh memory for all of them.
    """
    rows = _Rows(below, edges, limits, tally.rows)
    edges.count.add(useful_bytes=edges.num_edges * edges.index_nbytes + edges.indptr.spec.nbytes, read_bytes=0)
    tally.rows.add(useful_bytes=below.spec.nbytes, read_bytes=0)
    carried: Features | None = None  # state of a destination that has more edges in the next range
    ranges = edges.ranges(
        nbytes=limits.range_nbytes,
        state_nbytes=4 * layer.state_channels,
        block_rows=limits.block_rows,
        threads=threads,
    )
    with Accumulator(threads) as accumulator, torch.no_grad():
        for part in ranges:
            tally.chunks += 1
            state = zero_state(part.num_dst, layer.state_channels)
            layer.start(state, partial(rows.own, part))
            if carried is not None:
                state[0] = carried
            for block, (x, in_degree) in zip(part.source_blocks(), rows.sources(part, layer), strict=True):
                here = slice(int(part.offset[block]), int(part.offset[block + 1]))
                layer.add(accumulator, layer.send(x, in_degree), part.source[here], part.target[here], state)
                tally.steps += 1
                if task is not None:
                    task.advance(part.num_dst * (here.stop - here.start) / part.num_edges / 2)
            carried = state[-1].copy() if part.is_open else None
            if carried is None:
                yield from layer.outputs(state, part.degree, partial(rows.own, part))
            if task is not None:
                task.advance(part.num_dst / (2 if part.num_edges else 1))
            del part, state  # before the next range is made


class _Rows:
    """Rows of the layer below and degrees, in blocks."""

    def __init__(self, below: FlatArray, edges: RangeReader, limits: PassLimits, count: ReadCount) -> None:
        self._below = below
        self._edges = edges
        self._block_rows = limits.block_rows
        self._count = count

    def sources(self, part: EdgeRange, layer: LayerPass) -> Iterator[tuple[Features, NodeIds | None]]:
        """Yield the rows [S, D] and, where the layer needs them, in-degrees [S] of each block with edges."""
        starts = part.source_blocks() * self._block_rows
        stops = np.minimum(starts + self._block_rows, self._below.shape[0])
        blocks = list(zip(starts.tolist(), stops.tolist(), strict=True))
        degrees = self._degrees(blocks) if layer.needs_degree else None
        for _, x in self._read(blocks):
            yield x, None if degrees is None else next(degrees)

    def own(self, part: EdgeRange) -> Iterator[tuple[slice, Features]]:
        """Yield places within the range, in order, and their rows."""
        blocks = cut_rows(part.first, part.first + part.num_dst, self._block_rows)
        for start, x in self._read(blocks):
            yield slice(start - part.first, start - part.first + x.shape[0]), x

    def _read(self, blocks: list[tuple[int, int]]) -> Iterator[tuple[int, Features]]:
        return read_blocks(self._below, blocks, block_rows=self._block_rows, count=self._count)

    def _degrees(self, blocks: list[tuple[int, int]]) -> Iterator[NodeIds]:
        ends = [(start, stop + 1) for start, stop in blocks]
        stream = read_blocks(self._edges.indptr, ends, block_rows=self._block_rows + 1, count=self._edges.count)
        for _, starts in stream:
            yield np.diff(starts)


def zero_state(num_dst: int, channels: int) -> Features:
    """Return the state [num_dst, channels] that destinations start with, in memory that goes back when it is freed."""
    # Fresh pages are zero.
    return aligned_empty(4 * num_dst * channels).view(np.float32).reshape(num_dst, channels)
