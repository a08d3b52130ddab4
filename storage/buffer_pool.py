"""Page-aligned buffers that come back by themselves when nothing refers to them any more.

A large buffer's first touch costs more than filling it: the system hands out zeroed pages one by one.
"""

import threading
import weakref

import numpy as np

from graphsys.storage.direct import Bytes, aligned_empty

_PATIENCE_S = 0.02  # for a consumer that is about to let go of a buffer


class BufferPool:
    """Lends buffers of one size, ``limit`` at a time where their users let go of them in time. Safe from any thread.

    A view of a lent buffer, or a tensor that shares its memory, keeps it lent.

    Args:
        nbytes: size of the buffers; one that must be larger is made larger.
        limit: buffers that exist at most when their users let go of them; a user that keeps them gets more.
    """

    def __init__(self, nbytes: int, limit: int) -> None:
        self._nbytes = nbytes
        self._limit = limit
        self._free: list[Bytes] = []
        self._num_lent = 0
        # Buffers may come back in the middle of take(), when the garbage collector finds them: the lock is re-entrant.
        self._changed = threading.Condition(threading.RLock())

    def take(self, nbytes: int) -> Bytes:
        """Return a buffer of ``nbytes`` bytes, whose content is undefined."""
        with self._changed:
            if not self._changed.wait_for(self._may_lend, _PATIENCE_S):
                self._limit = self._num_lent  # its users keep their buffers: do not wait for them again
            owner = self._free.pop() if self._free else None
            self._num_lent += 1
        if owner is None or owner.nbytes < nbytes:
            owner = aligned_empty(max(self._nbytes, nbytes))
        # Over a memoryview, since numpy hands references on from a view of an array to that array.
        lent = np.frombuffer(owner.data, np.uint8)
        weakref.finalize(lent, self._give_back, owner).atexit = False
        return lent[:nbytes]

    def _may_lend(self) -> bool:
        return bool(self._free) or self._num_lent < self._limit

    def _give_back(self, owner: Bytes) -> None:
        with self._changed:
            self._num_lent -= 1
            if self._num_lent + len(self._free) < self._limit:
                self._free.append(owner)
            self._changed.notify()

    def close(self) -> None:
        """Let go of the buffers that are not lent; those that are go when their users do."""
        with self._changed:
            self._limit = 0
            self._free.clear()
