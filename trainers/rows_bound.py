"""How many rows a training read beside the fewest that any cache of its size could have read: Belady's bound.

Planning windows one by one is optimal within each, not over all of them. The bound takes the accesses of a whole epoch
at once, from the cache as the epoch found it. So that this stays cheap, only the accesses of a sample of the nodes are
followed, in a cache that is smaller by the same factor; both figures are of those nodes. Of an epoch of very many
batches some at a time are taken for one, which fetches a row once at most: still a bound, since no cache fetches fewer.

Source:
    Waldspurger, Park, Garthwaite, Ahmad 2015, "Efficient MRC construction with SHARDS": sampling by the hash of an id.
"""

from math import isqrt
from typing import cast

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds
from graphsys.storage.residency import plan_residency, residency_nbytes
from graphsys.storage.window import WindowBatch
from graphsys.trainers.plan import PackPlan

_TRACE_NBYTES = 8  # per access, beside what planning takes
_FEWEST_SLOTS = 256  # with fewer, what is sampled says too little of the whole
_PAIRS_SHARE = 4  # of the memory, as a divisor: how many rows stay from any batch to any other
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio; Knuth, TAOCP 3, section 6.4


class RowsBound:
    """Follows one epoch after the other.

    Args:
        plan: mode, cache size, batch size, and the memory to work in.
        batches_per_epoch: batches of an epoch.
        last_batch_id: of the one that ends it; None: ids count from 0 without gaps.
    """

    def __init__(self, plan: PackPlan, batches_per_epoch: int, *, last_batch_id: int | None = None) -> None:
        self._last_batch_id = batches_per_epoch - 1 if last_batch_id is None else last_batch_id
        most = isqrt(plan.bound_bytes // _PAIRS_SHARE // residency_nbytes(0, 0, 0))
        self.together = max(-(-batches_per_epoch // max(most, 1)), 1)  # batches taken for one
        self.shift = _shift(plan, batches_per_epoch, self.together)  # one node in 2**shift is followed
        self._slots = plan.num_slots >> self.shift
        # A sample that small would say nothing; all nodes always do.
        self._follows = plan.bound_bytes > 0 and plan.num_slots > 0
        self._follows = self._follows and (self.shift == 0 or self._slots >= _FEWEST_SLOTS)
        self._initial: NodeIds = np.empty(0, np.int64)
        self._trace: list[NodeIds] = []
        self._fetched = 0

    def see(self, batch: WindowBatch, held: NodeIds) -> tuple[int, int]:
        """Follow the next batch; return (rows read, fewest possible) of the epoch that it ends, zeros otherwise.

        Args:
            held: [S] global id of the row in each slot of the cache before the batch; -1: none. Read when an epoch, or
                the loader, starts.
        """
        if not self._follows or batch.residency is None:
            return 0, 0
        if not self._trace:
            self._initial = self._start(held)
        self._trace.append(self._sample(batch.sampled.node))
        self._fetched += self._sample(batch.residency.fetch_node).shape[0]
        if batch.sampled.batch_id < self._last_batch_id:
            return 0, 0
        plan = plan_residency(self._merged(), self._slots, self._initial)
        found = self._fetched, sum(part.fetch_node.shape[0] for part in plan.batches)
        self._trace, self._fetched = [], 0
        return found

    def _merged(self) -> list[NodeIds]:
        if self.together == 1:
            return self._trace
        starts = range(0, len(self._trace), self.together)
        return [np.unique(np.concatenate(self._trace[start : start + self.together])) for start in starts]

    def _start(self, held: NodeIds) -> NodeIds:
        """Return the sampled ids of the cache, in as many slots as the sample has."""
        sample = self._sample(held[held >= 0])[: self._slots]
        return np.concatenate([sample, np.full(self._slots - sample.shape[0], -1, np.int64)])

    def _sample(self, node: NodeIds) -> NodeIds:
        if self.shift == 0:
            return node.copy()
        hashed = (node.view(np.uint64) * _MULTIPLIER) >> np.uint64(64 - self.shift)
        return node[cast(npt.NDArray[np.bool_], hashed == 0)]


def _shift(plan: PackPlan, batches_per_epoch: int, together: int) -> int:
    accesses = plan.max_nodes * batches_per_epoch
    batches = -(-batches_per_epoch // together)
    for shift in range(32):
        planning = residency_nbytes(accesses >> shift, plan.num_slots >> shift, batches)
        if planning + _TRACE_NBYTES * (accesses >> shift) <= plan.bound_bytes:
            return shift
    return 32
