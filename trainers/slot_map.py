"""Where the rows lie that a window's slots name.

A window numbers slots as its plan fills them. When the first window of frozen samples comes again, nearly all rows that
it starts with are in the cache, in other places than the first time. They stay there, and the slots are numbered anew.
"""

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds
from graphsys.storage.jit import njit

Ints = npt.NDArray[np.int32]


class SlotMap:
    """Places of a cache, and which slot of the present window each of them is.

    Args:
        num_slots: rows that the cache holds (S).
    """

    def __init__(self, num_slots: int) -> None:
        self.held: NodeIds = np.full(num_slots, -1, np.int64)  # [S] global id of the row in each place; -1: none
        self._place: Ints = np.arange(num_slots, dtype=np.int32)  # [S] where each slot lies
        self._in_order = True  # whether slots are places

    def enter(self, wanted: NodeIds) -> tuple[NodeIds, Ints]:
        """Number the slots so that they hold ``wanted`` [S], global ids, -1 for none; other rows are forgotten.

        Returns:
            The ids [R], ascending, of the rows that the cache lacks, and the place [R] that each of them is to get.
        """
        if bool(((self.held[self._place] == wanted) | (wanted < 0)).all()):
            self.held[self._place] = wanted  # the plan knows of no other rows, and may fetch them again
            return np.empty(0, np.int64), np.empty(0, np.int32)
        by_id, slot = np.argsort(self.held), np.argsort(wanted)
        held, needed = self.held[by_id], wanted[slot]
        index = np.minimum(np.searchsorted(held, needed), held.shape[0] - 1)
        found, lacking = (held[index] == needed) & (needed >= 0), (held[index] != needed) & (needed >= 0)
        place = np.full_like(self._place, -1)
        place[slot[found]] = by_id[index[found]]
        is_free = np.ones(place.shape[0], np.bool_)
        is_free[place[slot[found]]] = False
        place[place < 0] = np.flatnonzero(is_free)
        self.held[is_free] = -1
        self.held[place[slot[lacking]]] = needed[lacking]
        self._place = place
        self._in_order = bool((np.diff(place) == 1).all())
        return needed[lacking], place[slot[lacking]]

    def put(self, slot: Ints, node: NodeIds) -> None:
        """Say that the rows of ``node`` [I] entered the distinct slots ``slot`` [I]."""
        self.held[self.places(slot)] = node

    def places(self, slot: Ints) -> Ints:
        """Return the place [I] of each of ``slot`` [I]."""
        return slot if self._in_order else self._place[slot]

    def sources(self, source: Ints) -> Ints:
        """Return a plan's sources [V] with places for slots, see :class:`graphsys.storage.gather.RowGather`."""
        return source if self._in_order else _renumbered(source, self._place)


@njit
def _renumbered(source: Ints, place: Ints) -> Ints:
    out = np.empty_like(source)
    for index in range(source.shape[0]):
        row = source[index]
        out[index] = row if row >= 0 else ~place[~row]
    return out
