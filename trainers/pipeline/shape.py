"""How a training is spread over processes: stages of layers, ways of nodes, and slots of time."""

from dataclasses import dataclass
from typing import Self

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Stages S and ways W of S * W processes; rank = stage * W + way."""

    stages: int  # S: each runs consecutive layers
    ways: int  # W: each owns a part of the nodes
    slots: int  # chunks of each way, K / W; the ways of a stage run chunks of one slot at the same time

    @classmethod
    def of(cls, run: RunConfig) -> Self:
        """Return the shape that a run asks for."""
        cluster = run.cluster
        return cls(stages=cluster.stages, ways=cluster.ways, slots=cluster.num_chunks // cluster.ways)

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self.stages * self.ways

    @property
    def num_chunks(self) -> int:
        """Chunks K of the whole graph."""
        return self.ways * self.slots

    def rank(self, stage: int, way: int) -> int:
        """Return the rank of the process that runs ``stage`` for ``way``."""
        return stage * self.ways + way

    def stage_of(self, rank: int) -> int:
        """Return the stage of a rank."""
        return rank // self.ways

    def way_of(self, rank: int) -> int:
        """Return the way of a rank."""
        return rank % self.ways

    def stage_ranks(self, stage: int) -> list[int]:
        """Return the ranks of a stage, by way."""
        return [self.rank(stage, way) for way in range(self.ways)]

    def check_world_size(self, world_size: int) -> None:
        """Make sure that there are as many processes as the shape needs.

        Raises:
            ConfigError: There are more or fewer.
        """
        if world_size != self.world_size:
            raise ConfigError(
                f"{self.stages} stages x {self.ways} ways need {self.world_size} processes, and {world_size} were "
                f"started; set cluster.num_workers to {self.world_size}, or change cluster.stages and cluster.ways"
            )
