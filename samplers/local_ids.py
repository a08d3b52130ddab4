"""Global ids to local ones: positions in a batch's list of nodes."""

import numpy as np

from graphsys.core.errors import CorruptError
from graphsys.core.types import NodeIds
from graphsys.samplers.kernels import EMPTY, Ids, Local, fill_table, relabel


class LocalIds:
    """Gives global ids local ones in the order in which they come; an open-addressing table that grows by doubling."""

    def __init__(self, num_nodes: int, expected: int) -> None:
        self.num_nodes = num_nodes
        self.node: NodeIds = np.empty(0, np.int64)  # [>= count] global id of each local id
        self.count = 0
        self._bits = 0
        self._table = np.empty(0, np.uint64)  # power of two; empty where it is not needed now
        self._set_table(max(4 * expected, 64).bit_length())

    def _set_table(self, bits: int) -> None:
        self._bits = bits
        self._table = np.empty(0, np.uint64)  # let go of before a larger one is made
        self._table = np.full(1 << bits, EMPTY, np.uint64)
        fill_table(self.node[: self.count], self._table, np.uint64(64 - bits))

    def assign(self, ids: Ids) -> Local:
        """Return the local ids [C] of global ``ids`` [C], which it may overwrite.

        Raises:
            CorruptError: An id is outside the graph.
        """
        if not len(self._table):
            self._set_table(max(2 * self.count, 64).bit_length())
        self._reserve(min(self.count + len(ids), self.num_nodes))
        local = ids.view(np.int32) if ids.dtype == np.int32 else np.empty(len(ids), np.int32)
        done = 0
        while True:
            done, self.count = relabel(
                ids, done, self.num_nodes, self.node, self.count, self._table, np.uint64(64 - self._bits), local
            )
            if done < 0:
                raise CorruptError(
                    f"the topology is corrupt: an edge comes from node {ids[-1 - done]}, but there are "
                    f"{self.num_nodes} nodes. Run `graphsys verify` on the store"
                )
            if done == len(ids):
                return local
            self._set_table(self._bits + 1)

    def _reserve(self, size: int) -> None:
        if size > len(self.node):
            # Pages that are never touched cost no memory, so the bound may be generous.
            node = np.empty(size, np.int64)
            node[: self.count] = self.node[: self.count]
            self.node = node

    def shrink(self) -> None:
        """Let go of all memory but that of the nodes so far; :meth:`assign` takes it anew."""
        self._table = np.empty(0, np.uint64)
        self.node = self.node[: self.count].copy()
