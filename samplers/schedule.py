"""Which seeds make up which batch: the order of a run's batches, known before any of them is sampled."""

from dataclasses import dataclass, field
from typing import Literal

from graphsys.core.errors import ConfigError
from graphsys.core.seeding import shuffled
from graphsys.core.types import BatchKey, NodeIds, SeedBatch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """The batches of one split over all epochs, numbered by *position* = epoch * batches_per_epoch + batch_id.

    With frozen samples only the first epoch's batches exist, and every epoch uses them again. Windows are runs of
    consecutive positions and may span epochs.
    """

    nodes: NodeIds  # [*] ascending global ids of the split
    batch_size: int  # the last batch of an epoch may be smaller
    seed: int
    epochs: int
    samples: Literal["fresh", "frozen"]
    shuffle: bool = True  # False: every epoch in the order of ``nodes``, as evaluation needs it
    _last_order: list[tuple[int, NodeIds]] = field(default_factory=list, init=False, repr=False)

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches in one pass over the split."""
        return -(-len(self.nodes) // self.batch_size)

    @property
    def num_batches(self) -> int:
        """Number of distinct batches to sample."""
        return self.batches_per_epoch * (1 if self.samples == "frozen" else self.epochs)

    def num_windows(self, window_batches: int) -> int:
        """Return how many windows of ``window_batches`` batches there are; the last may be shorter."""
        return -(-self.num_batches // window_batches)

    def window(self, index: int, window_batches: int) -> range:
        """Return the positions of the batches in window ``index``."""
        start = index * window_batches
        return range(start, min(start + window_batches, self.num_batches))

    def key(self, position: int) -> BatchKey:
        """Return what the randomness of a batch depends on.

        Raises:
            ConfigError: There is no such position.
        """
        if not 0 <= position < self.num_batches:
            raise ConfigError(f"batch position {position} is outside the schedule of {self.num_batches} batches")
        epoch, batch_id = divmod(position, self.batches_per_epoch)
        return BatchKey(seed=self.seed, epoch=epoch, batch_id=batch_id)

    def seeds(self, position: int) -> SeedBatch:
        """Return the seeds of a batch; the same for any thread count and call order.

        Raises:
            ConfigError: There is no such position.

        Cost:
            Keeps the order of one epoch, 8 bytes per node of the split; another epoch is shuffled anew.
        """
        key = self.key(position)
        start = key.batch_id * self.batch_size
        node = self._order(key.epoch)[start : start + self.batch_size]
        return SeedBatch(epoch=key.epoch, batch_id=key.batch_id, node=node)

    def _order(self, epoch: int) -> NodeIds:
        if not self.shuffle:
            return self.nodes
        for kept, order in self._last_order:
            if kept == epoch:
                return order
        order = shuffled(self.nodes, seed=self.seed, epoch=epoch)
        self._last_order[:] = [(epoch, order)]  # one step, so that other threads see the old or the new
        return order
