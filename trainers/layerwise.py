"""One layer over all nodes, a chunk of destinations at a time, each with its whole neighbourhood."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from graphsys.core.progress import Task
from graphsys.core.types import Features, NodeIds
from graphsys.core.units import KIB
from graphsys.models.base import BatchModel, LayerHop, LayerwiseModel
from graphsys.storage.features import ReadCount, scan_rows
from graphsys.storage.flat import FlatArray
from graphsys.trainers.chunks import Chunk, ChunkLimits, EdgeReader, LayerCost
from graphsys.trainers.node_set import NodeSet

_SCAN_SHARE = 16  # of the memory budget, as a divisor: buffers that rows are read through
_SCAN_LEAST = 64 * KIB

Positions = npt.NDArray[np.int32] | npt.NDArray[np.int64]


@dataclass(slots=True, kw_only=True)
class LayerTally:
    """What running one layer took; filled while it runs."""

    chunks: int = 0
    steps: int = 0
    rows: ReadCount


def layer_width(model: BatchModel, dim: int) -> int:
    """Return an upper estimate of the columns that any tensor inside a layer has: its widest parameter's."""
    return max([dim, *(max(parameter.shape, default=1) for parameter in model.parameters())])


def run_layer(
    model: LayerwiseModel,
    index: int,
    below: FlatArray,
    edges: EdgeReader,
    *,
    limits: ChunkLimits,
    cost: LayerCost,
    device: torch.device,
    tally: LayerTally,
    task: Task | None = None,
) -> Iterator[Features]:
    """Yield the outputs [*, D_out] of layer ``index`` for all nodes in the order of their ids.

    The blocks depend on the arguments only, so a rerun gives the same bytes.

    Args:
        model: In evaluation mode, on ``device``.
        below: [N, D_in] float32 outputs of the layer before, or features.
        edges: In-edges of the N nodes.
        task: Is advanced by the destinations done.

    Raises:
        MemoryBudgetError: One node has more in-edges than the budget holds.

    Cost:
        Every edge is read once; the rows that a chunk needs are read once per chunk, all of them once when they fit.
    """
    edges.check_degrees(limits)
    members = NodeSet(edges.num_nodes)
    rows = _Rows(below, limits, members, tally.rows)
    for chunk in edges.chunks(limits, members):
        tally.chunks += 1
        part = rows.of(chunk)
        local = NodeSet(part.x.shape[0])
        for start, stop in chunk.steps(cost, limits.step_bytes):
            tally.steps += 1
            step = _Step.cut(chunk, part, local, start, stop)
            hop = LayerHop(
                indptr=torch.from_numpy(step.indptr).to(device),
                indices=torch.from_numpy(step.indices).to(device),
                in_degree=_degrees(edges, part, step.node).to(device) if model.needs_degree else None,
            )
            with torch.no_grad():
                out = model.forward_layer(index, torch.from_numpy(part.x[step.node]).to(device), hop)
            yield out.float().cpu().numpy()
            if task is not None:
                task.advance(stop - start)
        del part, local


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """The rows of a chunk's nodes and its edges in their positions."""

    x: Features  # [R, D]
    source: Positions  # [E] row of ``x`` of each edge's source
    first: int  # row of the first destination; the others follow it
    node: NodeIds | None  # [R] global id of each row; None: row i is node i


class _Rows:
    """Rows of the layer below: of a chunk's nodes, or of all nodes at once where those fit."""

    def __init__(self, array: FlatArray, limits: ChunkLimits, members: NodeSet, count: ReadCount) -> None:
        self._array = array
        self._members = members
        self._memory = max(limits.memory // _SCAN_SHARE, _SCAN_LEAST)
        self._count = count
        self._all = array.read() if array.shape[0] <= limits.max_rows else None
        if self._all is not None:
            count.add(useful_bytes=self._all.nbytes, read_bytes=self._all.nbytes)

    def of(self, chunk: Chunk) -> _Part:
        if self._all is not None:
            return _Part(x=self._all, source=chunk.source, first=chunk.first, node=None)
        node = self._members.members()
        x = np.empty((node.shape[0], self._array.shape[1]), np.float32)
        for place, rows in scan_rows(self._array, node, memory=self._memory, count=self._count):
            x[place] = rows
        first = int(np.searchsorted(node, chunk.first))
        return _Part(x=x, source=self._members.positions(chunk.source), first=first, node=node)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Destinations [a, b) of a chunk with their sources, in positions of their own: destinations first."""

    node: NodeIds  # [S] rows of the chunk
    indptr: NodeIds  # [num_dst + 1] from 0
    indices: npt.NDArray[np.int64]  # [E] positions in ``node``

    @classmethod
    def cut(cls, chunk: Chunk, part: _Part, local: NodeSet, start: int, stop: int) -> "_Step":
        low, high = part.first + start, part.first + stop
        num_dst = stop - start
        begin, end = chunk.indptr[start], chunk.indptr[stop]
        source = part.source[begin:end]
        local.clear()
        local.add(source)
        held = local.members()
        # Destinations stand at the front; the other sources follow in ascending order.
        below, above = np.searchsorted(held, [low, high])
        node = np.concatenate([np.arange(low, high), held[:below], held[above:]])
        position = local.positions(source).astype(np.int64)
        position += np.where(source < low, num_dst, num_dst - (above - below))
        inside = (source >= low) & (source < high)
        position[inside] = source[inside] - low
        return cls(node=node, indptr=chunk.indptr[start : stop + 1] - begin, indices=position)


def _degrees(edges: EdgeReader, part: _Part, row: NodeIds) -> torch.Tensor:
    node = row if part.node is None else part.node[row]
    return torch.from_numpy(edges.in_degree(node))
