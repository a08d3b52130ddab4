"""Which vectors are equal: a graph of neighbours holds one of each, and an answer names all of them.

A thousand equal vectors would be each other's only neighbours in the graph, and a search that enters them would not
get out again. Tables have such rows: nodes without features, or without edges.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from graphsys.core.types import Array, NodeIds
from graphsys.deploy.serving.nearness import Lengths
from graphsys.storage.jit import njit

_NAMES = ("first", "indptr", "copy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """The nodes whose vectors are also another's, by the lowest id that has the vector."""

    first: NodeIds  # [G] ascending
    indptr: NodeIds  # [G + 1]
    copy: NodeIds  # [C] ascending within [indptr[g], indptr[g + 1])

    @classmethod
    def of(cls, owner: NodeIds) -> Self:
        """Return the copies by each node's ``owner`` [N]: the lowest id with its vector."""
        copy = np.flatnonzero((owner != np.arange(owner.shape[0])) & (owner >= 0)).astype(np.int64)
        of_copy = owner[copy]
        order = np.argsort(of_copy, kind="stable")
        first, counts = np.unique(of_copy, return_counts=True)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(first=first, indptr=indptr, copy=copy[order])

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        """Return what :meth:`as_arrays` gave."""
        return cls(**arrays)

    def as_arrays(self) -> dict[str, NodeIds]:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in _NAMES}

    def with_copies(self, node: NodeIds, most: int) -> NodeIds:
        """Return the nodes [c] of one answer with up to ``most`` copies of each."""
        if not self.first.size or not node.size:
            return node
        place = np.minimum(np.searchsorted(self.first, node), self.first.size - 1)
        group = place[self.first[place] == node]
        if not group.size:
            return node
        copies = [self.copy[self.indptr[g] : min(self.indptr[g + 1], self.indptr[g] + most)] for g in group]
        return np.concatenate([node, *copies])


def owners(vectors: Array, lengths: Lengths) -> NodeIds:
    """Return for every row the lowest row with the same bits [N]; -1 for a row that is not finite.

    Cost:
        Reads the vectors once and a half; 32 bytes of memory per row.
    """
    bits = vectors.view(np.uint16 if vectors.dtype.itemsize == 2 else np.uint32)
    hashes = np.empty(bits.shape[0], np.uint64)
    _hash_rows(bits, hashes)
    order = np.argsort(hashes, kind="stable").astype(np.int64)
    owner = np.arange(bits.shape[0], dtype=np.int64)
    _find_owners(bits, hashes, order, owner)
    owner[np.isnan(lengths)] = -1
    return owner


@njit
def _hash_rows(bits: Any, out: npt.NDArray[np.uint64]) -> None:
    for row in range(bits.shape[0]):
        mixed = np.uint64(0x9E3779B97F4A7C15)
        for place in range(bits.shape[1]):
            mixed = (mixed ^ np.uint64(bits[row, place])) * np.uint64(0xFF51AFD7ED558CCD)
            mixed ^= mixed >> np.uint64(32)
        out[row] = mixed


@njit
def _find_owners(bits: Any, hashes: npt.NDArray[np.uint64], order: NodeIds, owner: NodeIds) -> None:
    # Rows with one hash stand together, the lowest first. One that differs all the same keeps itself as its owner.
    start = 0
    for place in range(1, order.shape[0]):
        if hashes[order[place]] != hashes[order[start]]:
            start = place
            continue
        equal = True
        for column in range(bits.shape[1]):
            if bits[order[place], column] != bits[order[start], column]:
                equal = False
                break
        if equal:
            owner[order[place]] = order[start]
