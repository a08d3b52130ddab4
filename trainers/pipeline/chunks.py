"""The nodes of a graph in the order of their chunks, and what one way knows of the graph.

A *place* is a node's number in that order: the nodes of a way are one range of places, and so are those of a chunk. A
way keeps rows of its own nodes, in the order of places, and behind them rows of its *mirrors*: nodes of other ways that
send messages to its own.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsys.core.types import NodeIds, Topology
from graphsys.models.aggregate import transposed

_INT32_EDGES = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkTable:
    """Which node belongs to which chunk."""

    node: NodeIds  # [N] dense id of each place; ascending within a chunk
    counts: NodeIds  # [W, T] nodes of the chunk of each way and slot

    @classmethod
    def of(cls, chunk: NodeIds, *, ways: int, slots: int) -> Self:
        """Return the table of chunks [N] in [0, ways * slots) by node."""
        counts = np.bincount(chunk, minlength=ways * slots).reshape(ways, slots)
        return cls(node=np.argsort(chunk, kind="stable"), counts=counts)

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return int(self.node.shape[0])

    @property
    def num_ways(self) -> int:
        """Number of ways W."""
        return int(self.counts.shape[0])

    @property
    def num_slots(self) -> int:
        """Chunks T of each way."""
        return int(self.counts.shape[1])

    @property
    def way_starts(self) -> NodeIds:
        """[W + 1] first place of each way."""
        return _offsets(self.counts.sum(1))

    @property
    def chunk_starts(self) -> NodeIds:
        """[W * T + 1] first place of each chunk."""
        return _offsets(self.counts)

    def slot_starts(self, way: int) -> NodeIds:
        """Return [T + 1] first row of each slot among the way's own rows."""
        return _offsets(self.counts[way])

    def nodes_of(self, way: int) -> NodeIds:
        """Return the dense ids [n] of a way's nodes, in the order of their places."""
        return self.node[slice(*self.way_starts[way : way + 2])]

    @property
    def place(self) -> NodeIds:
        """[N] place of each dense id."""
        place = np.empty(self.num_nodes, np.int64)
        place[self.node] = np.arange(self.num_nodes)
        return place


def _offsets(counts: npt.ArrayLike) -> NodeIds:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """Sums to make, in compressed form: row i adds up the rows ``indices[indptr[i]:indptr[i + 1]]``."""

    indptr: Tensor  # [n + 1] int32 or int64, from 0
    indices: Tensor  # [E] of the same type

    def rows(self, start: int, stop: int) -> Self:
        """Return the sums of the rows [start, stop); ``indices`` is a view."""
        indptr = self.indptr[start : stop + 1]
        first, last = (int(indptr[0]), int(indptr[-1])) if stop > start else (0, 0)
        return type(self)(indptr=indptr - first, indices=self.indices[first:last])

    def to(self, device: torch.device) -> Self:
        """Return the same sums on a device."""
        return type(self)(indptr=self.indptr.to(device), indices=self.indices.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class WayGraph:
    """One way's nodes, their in-edges, and what it exchanges with the other ways; rows are the way's own numbers."""

    way: int
    slot_starts: tuple[int, ...]  # [T + 1] own rows of each slot
    mirror_starts: tuple[tuple[int, ...], ...]  # [T][W + 1] mirror rows of each slot by their owner
    sends: tuple[tuple[Tensor, ...], ...]  # [T][W] rows int64, counted within the chunk, that each other way mirrors
    into: Edges  # of each own row: the rows that send it a message
    out_of: Edges  # of each row, mirrors too: the own rows that it sends a message to
    in_degree: Tensor  # [n] int32 of own rows in the whole graph
    mirror_place: NodeIds  # [m] place of each mirror row

    @property
    def num_own(self) -> int:
        """Own rows n."""
        return self.slot_starts[-1]

    @property
    def num_rows(self) -> int:
        """Own and mirror rows n + m."""
        return self.num_own + int(self.mirror_place.shape[0])

    @property
    def num_slots(self) -> int:
        """Chunks T of the way."""
        return len(self.slot_starts) - 1

    def to(self, device: torch.device) -> Self:
        """Return the same on a device."""
        return replace(
            self,
            sends=tuple(tuple(index.to(device) for index in part) for part in self.sends),
            into=self.into.to(device),
            out_of=self.out_of.to(device),
            in_degree=self.in_degree.to(device),
        )

    def own(self, slot: int) -> slice:
        """Return the own rows of a slot."""
        return slice(self.slot_starts[slot], self.slot_starts[slot + 1])

    def mirrors(self, slot: int) -> slice:
        """Return the mirror rows of a slot, all owners together."""
        return slice(self.mirror_starts[slot][0], self.mirror_starts[slot][-1])

    def mirrors_of(self, slot: int, owner: int) -> slice:
        """Return the mirror rows of a slot that belong to one other way."""
        return slice(self.mirror_starts[slot][owner], self.mirror_starts[slot][owner + 1])


def way_graph(topology: Topology, table: ChunkTable, way: int) -> WayGraph:
    """Return what ``way`` knows of the graph.

    Cost:
        Looks at every edge once, and holds the way's own twice.
    """
    place, starts = table.place, table.way_starts
    first, stop = int(starts[way]), int(starts[way + 1])
    degree, source = _in_edges(topology, table.nodes_of(way), place)
    mirror = _by_slot(_mirrors(source, table, way), table)
    counts = np.bincount(_group(mirror, table), minlength=table.counts.size).reshape(table.num_slots, table.num_ways)
    bounds = stop - first + _offsets(counts.reshape(-1))
    num_rows = stop - first + mirror.shape[0]
    into = Edges(
        indptr=_tensor(_offsets(degree), source.shape[0]),
        indices=_tensor(_local(source, mirror, first, stop), source.shape[0]),
    )
    out_starts, out_rows, _ = transposed(into.indptr, into.indices, num_src=num_rows)
    seen = [
        mirror if other == way else _mirrors(_in_edges(topology, table.nodes_of(other), place)[1], table, other)
        for other in range(table.num_ways)
    ]
    return WayGraph(
        way=way,
        slot_starts=tuple(table.slot_starts(way).tolist()),
        mirror_starts=tuple(
            tuple(bounds[slot * table.num_ways : (slot + 1) * table.num_ways + 1].tolist())
            for slot in range(table.num_slots)
        ),
        sends=_sends(seen, table, way),
        into=into,
        out_of=Edges(indptr=out_starts, indices=out_rows),
        in_degree=torch.from_numpy(degree.astype(np.int32)),
        mirror_place=mirror,
    )


def count_mirrors(topology: Topology, table: ChunkTable) -> tuple[int, ...]:
    """Return for each way the number of its mirrors: nodes of other ways that have an edge into one of its own.

    Cost:
        O(W N + E) time, 9 N bytes and those of one way's edges.
    """
    if table.num_ways == 1:
        return (0,)
    place = table.place
    sources = (_in_edges(topology, table.nodes_of(way), place)[1] for way in range(table.num_ways))
    return tuple(_mirrors(source, table, way).shape[0] for way, source in enumerate(sources))


def _in_edges(topology: Topology, node: NodeIds, place: NodeIds) -> tuple[NodeIds, NodeIds]:
    """Return the in-degrees [n] of nodes, and the places [E] of their in-edges' sources, node by node."""
    begin = topology.indptr[node]
    degree = topology.indptr[node + 1] - begin
    shift = np.repeat(begin - _offsets(degree)[:-1], degree)
    return degree, place[topology.indices[shift + np.arange(shift.shape[0])]]


def _group(place: NodeIds, table: ChunkTable) -> NodeIds:
    """Return for each place the number of its slot and way, slot first."""
    chunk = np.searchsorted(table.chunk_starts, place, side="right") - 1
    way, slot = np.divmod(chunk, table.num_slots)
    return slot * table.num_ways + way


def _mirrors(source: NodeIds, table: ChunkTable, way: int) -> NodeIds:
    """Return the places outside ``way`` among ``source``, each once, ascending."""
    seen = np.zeros(table.num_nodes, np.bool_)
    seen[source] = True
    seen[slice(*table.way_starts[way : way + 2])] = False
    return np.flatnonzero(seen)


def _by_slot(place: NodeIds, table: ChunkTable) -> NodeIds:
    """Return ascending places by slot, then owner, then place."""
    return place[np.argsort(_group(place, table), kind="stable")]


def _local(source: NodeIds, mirror: NodeIds, first: int, stop: int) -> NodeIds:
    own = (source >= first) & (source < stop)
    local = np.where(own, source - first, 0)
    by_place = np.argsort(mirror)
    local[~own] = stop - first + by_place[np.searchsorted(mirror[by_place], source[~own])]
    return local


def _sends(seen: list[NodeIds], table: ChunkTable, way: int) -> tuple[tuple[Tensor, ...], ...]:
    """Return for each slot and way the own rows among ``seen``, each way's mirrors: ascending, but for its own."""
    first, stop = table.way_starts[way : way + 2]
    starts = table.slot_starts(way)
    mine = [part[(part >= first) & (part < stop)] - first for part in seen]
    cuts = [np.searchsorted(part, starts) for part in mine]
    return tuple(
        tuple(
            torch.from_numpy(part[cut[slot] : cut[slot + 1]] - starts[slot])
            for part, cut in zip(mine, cuts, strict=True)
        )
        for slot in range(table.num_slots)
    )


def _tensor(array: NodeIds, num_edges: int) -> Tensor:
    return torch.from_numpy(array.astype(np.int32 if num_edges < _INT32_EDGES else np.int64))
