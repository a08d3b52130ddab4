"""Which seeds make up which batch: the order of a run's batches, known before any of them is sampled."""

from dataclasses import dataclass, field
from typing import Literal

from graphsys.core.errors import ConfigError
from graphsys.core.seeding import shuffled
from graphsys.core.types import BatchKey, NodeIds, SeedBatch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Schedule:
    """The batches of one split over all epochs, numbered by *position* = epoch * batches_per_epoch + index.

    With frozen samples only the first epoch's batches exist, and every epoch uses them again. Windows are runs of
    consecutive positions and may span epochs.

    Of several workers each has a share: the batches whose id is its rank modulo the number of workers, in the same
    order. Ids, seeds and draws of a batch are those that it has with one worker; the index counts the share's own.
    """

    nodes: NodeIds  # [*] ascending global ids of the split
    batch_size: int  # the last batch of an epoch may be smaller
    seed: int
    epochs: int
    samples: Literal["fresh", "frozen"]
    shuffle: bool = True  # False: every epoch in the order of ``nodes``, as evaluation needs it
    rank: int = 0  # whose share this is, in [0, world_size)
    world_size: int = 1
    _last_order: list[tuple[int, NodeIds]] = field(default_factory=list, init=False, repr=False)

    @property
    def epoch_batches(self) -> int:
        """Number of batches in one pass over the split, those of all workers."""
        return -(-len(self.nodes) // self.batch_size)

    @property
    def batches_per_epoch(self) -> int:
        """Number of them in this share."""
        return self.index(self.epoch_batches)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which all workers together take the batches of one epoch, at most one each per step."""
        return -(-self.epoch_batches // self.world_size)

    @property
    def mean_batches_per_epoch(self) -> float:
        """Full batches' worth of seeds in one pass, per worker."""
        return len(self.nodes) / self.batch_size / self.world_size

    def index(self, batch_id: int) -> int:
        """Return how many batches of an epoch are in this share and come before ``batch_id``."""
        return -(-(batch_id - self.rank) // self.world_size)

    def num_seeds(self, first: int, stop: int) -> int:
        """Return the number of seeds in the batches [first, stop) of an epoch, those of all workers."""
        return min(stop * self.batch_size, len(self.nodes)) - min(first * self.batch_size, len(self.nodes))

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
        epoch, index = divmod(position, self.batches_per_epoch)
        return BatchKey(seed=self.seed, epoch=epoch, batch_id=index * self.world_size + self.rank)

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
