"""The run file's section ``cluster``: where processes run, and how a training is spread over them."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from graphsys.core.config_parts import COUNT_LIMIT, Section
from graphsys.core.errors import ConfigError

_CHUNKS_PER_STAGE = 4  # of each way: GNNPipe's choice (arXiv:2308.10087)


class ClusterConfig(Section):
    """Where processes run. Several workers, or another address than local, train under Ray."""

    address: str = Field(
        "local",
        min_length=1,
        description="local: this machine; or a running Ray cluster: auto, host:port, ray://host:port.",
    )
    num_workers: int = Field(
        1, gt=0, lt=1 << 16, description="Training processes; memory and pack.disk are limits of each."
    )
    threads: int = Field(
        0,
        ge=0,
        description="Cores and threads of a worker; 0: those of its machine, shared evenly by the workers there.",
    )
    max_failures: int = Field(
        3, ge=0, description="How often lost workers are replaced; each time, training goes on from a checkpoint."
    )
    timeout: float = Field(
        1800.0,
        gt=0,
        description="Longest time that workers wait for one another, in seconds; what one does alone takes less: "
        "splitting the graph, timing layers, a validation.",
    )
    dashboard: bool = Field(
        True,
        description="local: start Ray's web page too, for this machine alone, and show its address. It takes 2 s of a "
        "core and 0.5 GiB.",
    )
    store_cache: Path | None = Field(
        None,
        description="Folder of each machine for a copy of the store that its workers read; left out: they read it in "
        "place.",
    )
    stages: int = Field(1, gt=0, lt=COUNT_LIMIT, description="Parts of consecutive layers, a process each (pipeline).")
    ways: int = Field(
        1, gt=0, lt=COUNT_LIMIT, description="Parts of the nodes, each with processes of its own (pipeline)."
    )
    chunks: Literal["auto"] | Annotated[int, Field(gt=0, lt=COUNT_LIMIT)] = Field(
        "auto",
        description="Parts of the graph that follow each other through the stages; auto: 4 per process, or "
        "1 per way with one stage, which trains exactly (pipeline).",
    )

    @model_validator(mode="after")
    def _check_chunks(self) -> Self:
        if self.num_chunks % self.ways:
            raise ValueError(
                f"chunks is {self.chunks} and ways is {self.ways}; each way needs as many chunks: give a multiple"
            )
        return self

    @property
    def world_size(self) -> int:
        """Number of training processes."""
        return max(self.num_workers, self.stages * self.ways)

    @property
    def num_chunks(self) -> int:
        """Number of chunks K of the whole graph."""
        if self.chunks != "auto":
            return self.chunks
        return self.ways if self.stages == 1 else _CHUNKS_PER_STAGE * self.stages * self.ways


def check_chunks(chunks: int, num_nodes: int) -> None:
    """Make sure that a graph of ``num_nodes`` nodes can be split into ``chunks``.

    Raises:
        ConfigError: There are more chunks than nodes.
    """
    if chunks > num_nodes:
        raise ConfigError(
            f"cluster.chunks asks METIS for {chunks} chunks of a graph of {num_nodes} nodes; give at most {num_nodes}"
        )
