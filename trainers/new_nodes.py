"""New nodes and their edges, and how they stand beside the known nodes that they see."""

from dataclasses import dataclass, field

import numpy as np

from graphsys.core.types import Features, NodeIds


def _none() -> NodeIds:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewNodes:
    """Q nodes that the stored graph does not have. Messages go from known to new, and from source to target."""

    x: Features  # [Q, D] features, as the store's
    new: NodeIds = field(default_factory=_none)  # [M] which new node each edge leads to
    known: NodeIds = field(default_factory=_none)  # [M] dense id of the known node that it comes from
    source: NodeIds = field(default_factory=_none)  # [P] new node that each edge among new nodes comes from
    target: NodeIds = field(default_factory=_none)  # [P] new node that it leads to

    @property
    def num_nodes(self) -> int:
        """Number of new nodes Q."""
        return int(self.x.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """All edges into the new nodes, in positions: new nodes first, then the known ones that they see."""

    num_new: int  # Q
    known: NodeIds  # [K] dense ids, ascending; node ``known[i]`` has position Q + i
    target: NodeIds  # [E] ascending
    source: NodeIds  # [E] positions, ascending for one target, as a store keeps them

    @property
    def degree(self) -> NodeIds:
        """In-degrees [Q] of the new nodes."""
        return np.bincount(self.target, minlength=self.num_new)

    @property
    def indptr(self) -> NodeIds:
        """[Q + 1] new node i has the edges [indptr[i], indptr[i + 1])."""
        return np.concatenate([[0], np.cumsum(self.degree)]).astype(np.int64)


def join(nodes: NewNodes) -> Joined:
    """Return the edges of ``nodes`` in positions."""
    known, place = np.unique(nodes.known, return_inverse=True)
    target = np.concatenate([nodes.new, nodes.target]).astype(np.int64)
    source = np.concatenate([nodes.num_nodes + place.astype(np.int64), nodes.source])
    order = np.lexsort((source, target))
    return Joined(num_new=nodes.num_nodes, known=known, target=target[order], source=source[order])


def together(parts: list[NewNodes]) -> NewNodes:
    """Return the nodes of several requests as one, in their order; no edge joins two requests."""
    start = np.cumsum([0, *(part.num_nodes for part in parts[:-1])])
    shifted = list(zip(start, parts, strict=True))
    return NewNodes(
        x=np.concatenate([part.x for part in parts]),
        new=np.concatenate([part.new + first for first, part in shifted]),
        known=np.concatenate([part.known for part in parts]),
        source=np.concatenate([part.source + first for first, part in shifted]),
        target=np.concatenate([part.target + first for first, part in shifted]),
    )
