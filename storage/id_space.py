"""The ids of one node type in a store that is being made: what was written, and how edges look them up."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from graphsys.core.errors import InputError
from graphsys.core.types import NodeIds
from graphsys.storage.external_ids import is_text, plain_ids, show_id
from graphsys.storage.flat import FlatArray, FlatSpec
from graphsys.storage.id_map import IdMap, Kind
from graphsys.storage.rank_index import RankIndex, build_rank_index
from graphsys.storage.sources import ExternalIds


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeIdSpace:
    """The ids of one node type, as written."""

    node_type: str
    kind: Kind
    num_nodes: int
    folder: Path  # of the store being made
    arrays: dict[str, FlatSpec] = field(default_factory=dict)  # of the id map, by path below the folder

    @property
    def id_map(self) -> IdMap:
        """The map, memory-mapped."""
        return IdMap.read(self.kind, self.num_nodes, self.folder, f"id_map/{self.node_type}", self.arrays)

    def shown(self, node: int) -> str:
        """Return how messages show the external id of a dense one."""
        return show_id(self.id_map.to_external(np.array([node]))[0])

    def why_unknown(self) -> str:
        """Return the end of a sentence about an id that is not there."""
        if self.kind == "identity":
            return f"outside [0, {self.num_nodes}): node type '{self.node_type}' has {self.num_nodes} nodes"
        return f"which is no id of node type '{self.node_type}'; add the node, or remove the edge"

    def open_lookup(self, memory: int) -> "NodeLookup":
        """Return the fastest look-up that ``memory`` bytes allow."""
        index = None
        if self.kind == "integer" and self.num_nodes:
            base = f"id_map/{self.node_type}"
            ascending = f"{base}/sorted_ids" if f"{base}/sorted_ids" in self.arrays else f"{base}/ids"
            order = self.arrays.get(f"{base}/order")
            index = build_rank_index(
                FlatArray(self.folder / ascending, self.arrays[ascending]),
                None if order is None else FlatArray(self.folder / base / "order", order),
                memory,
            )
        return NodeLookup(space=self, id_map=self.id_map, index=index)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLookup:
    """Finds dense ids of one node type, chunk by chunk."""

    space: NodeIdSpace
    id_map: IdMap
    index: RankIndex | None  # direct look-up of integers, where it fits into memory

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return 0 if self.index is None else self.index.nbytes

    def to_node(self, ids: ExternalIds) -> NodeIds:
        """Return dense ids [C]; -1 where there is no such node.

        Raises:
            InputError: The ids are strings where the nodes' are integers, or the other way round.
        """
        plain = plain_ids(ids)
        if len(plain) and is_text(plain) != (self.space.kind == "string"):
            found, known = ("strings", "integers") if is_text(plain) else ("integers", "strings")
            raise InputError(f"edges name node type '{self.space.node_type}' by {found}, but its ids are {known}")
        if self.space.kind == "identity" and len(plain):
            # A negative id is huge as an unsigned one, so that one comparison checks both bounds.
            outside = plain.view(np.uint64) >= np.uint64(self.space.num_nodes)
            return np.where(outside, -1, plain) if outside.any() else plain
        return self.id_map.to_node(plain)[0] if self.index is None else self.index.to_node(plain)
