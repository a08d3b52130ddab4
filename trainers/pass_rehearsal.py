"""A part of every layer of exact inference, thrown away: what edges, messages, sums and outputs cost on this machine.

The first destinations' edges are read and sorted as inference does it, and messages are added up along them. Rows are
drawn, since those of inner layers are not there yet.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import numpy as np
import torch

from graphsys.core.types import EdgeType, Features
from graphsys.core.units import MIB
from graphsys.models.base import BatchModel
from graphsys.storage.direct import Bytes, aligned_empty
from graphsys.storage.row_blocks import cut_rows
from graphsys.storage.store import Store
from graphsys.trainers.accumulate import Accumulator
from graphsys.trainers.edge_ranges import EDGE_NBYTES, START_NBYTES, EdgeRange, RangeReader, Targets
from graphsys.trainers.layer_pass import LayerPass, layer_pass
from graphsys.trainers.layerwise import layer_width
from graphsys.trainers.passes import PassLimits, zero_state

_EDGES = 1 << 21  # of the part whose messages are added up
_BLOCK_EDGES = 1 << 14  # of a block of sources: with 2,000 an edge took over twice as long as with 13,000
_MOST_EDGES = 1 << 24  # of the part that is read and sorted
_ROOM_SHARE = 0.75  # of the destinations for whose sums there is room: the first ones may have fewer edges than others
_WARM_EDGES = 1 << 10  # of a first one, with which kernels are compiled and libraries set up
_BLOCKS = 8  # that messages and outputs are timed on
_ROUNDS = 5  # the later ones find memory that the first one has touched
_STATE_BYTES = 512 * MIB  # most that sums are spread over: more than processors' caches

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPace:
    """How fast one layer goes as passes over the rows; reads of rows and writes left out."""

    state_channels: int  # float32 columns of a destination's state
    edge_s: float  # seconds of an edge: read and sorted, its message added
    source_s: float  # of a source, in every range: its message
    own_s: float  # of a destination: its first state and its output


def rehearse_passes(
    model: BatchModel, store: Store, edge_type: EdgeType, *, dims: tuple[int, ...], memory: int, device: torch.device
) -> tuple[PassPace, ...]:
    """Return how fast each layer goes; nothing where some layer takes chunks of edges instead.

    Args:
        model: On ``device``; any weights.
        dims: Columns of the features and of every layer's output.
        memory: The run's.

    Raises:
        MemoryBudgetError: The budget does not hold a few edges of some layer.
    """
    model.eval()
    edges = RangeReader(store, edge_type)
    layers = [layer_pass(model, index, device) for index in range(len(dims) - 1)]
    known = [layer for layer in layers if layer is not None]
    if len(known) < len(layers):
        return ()
    limits = [
        PassLimits.of(memory, dim=dim, width=layer_width(model, dim), state_nbytes=4 * layer.state_channels)
        for layer, dim in zip(known, dims, strict=False)
    ]
    most = 4 * edges.num_nodes * max(layer.state_channels for layer in known)
    room = min(each.range_nbytes for each in limits) // 2  # the other half is for the part's edges
    space = aligned_empty(min(most, _STATE_BYTES, room))
    space[:] = 0
    with Accumulator(torch.get_num_threads()) as accumulator, torch.no_grad():
        parts = [
            _Part(layer, edges, limit, dim, accumulator, space)
            for layer, dim, limit in zip(known, dims, limits, strict=False)
        ]
        for part in parts:
            part.pace(_WARM_EDGES)
        # All layers in turn: a second that the machine is busy with something else meets one round of each.
        rounds = [[part.pace(part.num_edges) for part in parts] for _ in range(_ROUNDS)]
    return tuple(_middle(list(paces)) for paces in zip(*rounds, strict=True))


def _middle(rounds: list[PassPace]) -> PassPace:
    return PassPace(
        state_channels=rounds[0].state_channels,
        edge_s=median(pace.edge_s for pace in rounds),
        source_s=median(pace.source_s for pace in rounds),
        own_s=median(pace.own_s for pace in rounds),
    )


class _Part:
    """One layer, and what a few of its edges are run on."""

    def __init__(
        self, layer: LayerPass, edges: RangeReader, limits: PassLimits, dim: int, accumulator: Accumulator,
        space: Bytes,
    ) -> None:  # fmt: skip
        self._layer = layer
        self._edges = edges
        self._limits = limits
        self._accumulator = accumulator
        self._space = space
        rows = min(limits.block_rows, edges.num_nodes)
        self._blocks = min(_BLOCKS, -(-edges.num_nodes // rows))
        self._x = np.random.default_rng(0).standard_normal((rows, dim), np.float32)
        self._in_degree = np.ones(rows, np.int64) if layer.needs_degree else None

    @property
    def num_edges(self) -> int:
        """Edges that blocks of sources share as they do in a real range, and whose destinations' state has room."""
        blocks = -(-self._edges.num_nodes // self._limits.block_rows)
        num_dst = self._space.nbytes // (4 * self._layer.state_channels)
        room = int(_ROOM_SHARE * num_dst) * self._edges.num_edges // self._edges.num_nodes
        return min(max(_EDGES, blocks * _BLOCK_EDGES), _MOST_EDGES, max(room, _WARM_EDGES))

    def pace(self, num_edges: int) -> PassPace:
        """Return how fast about ``num_edges`` edges go."""
        layer, part, sorted_s = self._layer, *_timed(lambda: self._range(num_edges))
        sent, sent_s = _timed(self._send)
        state, stride = self._state(part.num_dst)
        target = part.target * np.int32(stride)
        num_rows = self._blocks * self._x.shape[0]
        own = slice(min(part.num_dst, num_rows))

        def rows() -> Iterator[tuple[slice, Features]]:
            for start, stop in cut_rows(0, own.stop, self._x.shape[0]):
                yield slice(start, stop), self._x[: stop - start]

        _, started_s = _timed(lambda: layer.start(state[own], rows))
        added, added_s = _timed(lambda: self._add(part, sent, target, state))
        _, output_s = _timed(lambda: list(layer.outputs(state[own], part.degree[own], rows)))
        return PassPace(
            state_channels=layer.state_channels,
            edge_s=sorted_s / max(part.num_edges, 1) + added_s / max(added, 1),
            source_s=sent_s / num_rows,
            own_s=(started_s + output_s) / own.stop,
        )

    def _send(self) -> Features:
        for _ in range(self._blocks):
            sent = self._layer.send(self._x, self._in_degree)
        return sent

    def _range(self, num_edges: int) -> EdgeRange:
        per_edge = EDGE_NBYTES + self._edges.index_nbytes
        state_nbytes = 4 * self._layer.state_channels
        share = min(num_edges / max(self._edges.num_edges, 1), 1.0)
        wanted = int(num_edges * per_edge + share * self._edges.num_nodes * (state_nbytes + START_NBYTES))
        ranges = self._edges.ranges(
            nbytes=min(wanted, self._limits.range_nbytes // 2),
            state_nbytes=state_nbytes,
            block_rows=self._limits.block_rows,
            threads=torch.get_num_threads(),
        )
        return next(ranges)

    def _state(self, num_dst: int) -> tuple[Features, int]:
        """Return the state of ``num_dst`` destinations and how many rows apart they lie in it.

        Side by side they would stay in the processor's caches, where those of the whole graph do not.
        """
        channels = self._layer.state_channels
        most = self._space.nbytes // (4 * channels)
        if most < num_dst:
            return zero_state(num_dst, channels), 1
        return self._space[: 4 * channels * most].view(np.float32).reshape(most, channels), most // num_dst

    def _add(self, part: EdgeRange, sent: Features, target: Targets, state: Features) -> int:
        """Add up messages along some of the edges, of blocks all over the graph; return how many."""
        added = 0
        for block in part.source_blocks()[:: max(part.num_edges // _EDGES, 1)]:
            here = slice(int(part.offset[block]), int(part.offset[block + 1]))
            self._layer.add(self._accumulator, sent, part.source[here], target[here], state)
            added += here.stop - here.start
        return added


def _timed(work: Callable[[], _Result]) -> tuple[_Result, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started
