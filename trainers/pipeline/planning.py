"""The plan of a run with strategy ``pipeline``: parts timed on this machine, then arithmetic alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import Topology
from graphsys.models.layered import LayeredModel
from graphsys.trainers.device import exact_torch, own_threads
from graphsys.trainers.objective import training_nodes
from graphsys.trainers.opening import Training, open_training
from graphsys.trainers.pipeline.assemble import GraphData
from graphsys.trainers.pipeline.buffers import Buffers
from graphsys.trainers.pipeline.chunks import ChunkTable, count_mirrors
from graphsys.trainers.pipeline.network import CostRates, GraphSplit, NetworkShape
from graphsys.trainers.pipeline.partition import split_graph, split_nbytes
from graphsys.trainers.pipeline.profile import ChunkSample, time_chunks
from graphsys.trainers.pipeline.sending import loopback_bytes_s
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.strategies import Limits, StrategyForecast, advise, forecast, ways_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is trained, without a shape."""

    job: Training
    model: LayeredModel  # on the device
    data: GraphData

    @classmethod
    def of(cls, job: Training) -> "Scene":
        """Return the scene of an opened run.

        Raises:
            ConfigError: Its network is not one of layers.
        """
        model, store = job.model, job.store
        if not isinstance(model, LayeredModel):
            raise ConfigError("trainer.strategy is pipeline, which needs a network of layers; see model.name")
        data = GraphData(
            topology=store.topology(store.edge_type_within(job.node_type)),
            x=store.features(job.node_type).memmap(),
            y=store.labels(job.node_type),
            train=training_nodes(store, job.node_type),
        )
        return cls(job=job, model=model.to(job.device), data=data)

    @property
    def network(self) -> NetworkShape:
        """Widths and sizes of the network."""
        return NetworkShape.of(self.model, self.data.x.shape[1])

    def sample(self, table: ChunkTable) -> ChunkSample:
        """Time the network's parts on some chunks of ``table``."""
        job, run = self.job, self.job.run
        return time_chunks(
            self.model,
            self.data,
            table,
            objective=job.objective,
            config=run.trainer,
            allocate=Buffers(run.out, run.memory, job.device).allocate,
            device=job.device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePlan:
    """What a run should cost, and with ``advice`` what its processes could do otherwise."""

    run: RunConfig
    forecasts: tuple[StrategyForecast, ...]  # the run's own shape, and where they are compared the others
    send_bytes_s: float | None  # what one process is taken to send per second; None: it sends nothing
    split_bytes: int  # memory of process 0 while METIS splits the graph, before training
    left_out: Mapping[int, str]  # ways -> why they cannot be
    recommended: StrategyForecast | None  # None where nothing was compared
    reason: str

    @property
    def own(self) -> StrategyForecast:
        """The forecast of the shape that the run asks for."""
        cluster = self.run.cluster
        (own,) = (one for one in self.forecasts if (one.stages, one.ways) == (cluster.stages, cluster.ways))
        return own

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        best = self.recommended
        return {
            "strategy": "pipeline",
            "mode": self.own.name,
            "reason": self.reason,
            "workers": self.run.cluster.stages * self.run.cluster.ways,
            "epochs": self.run.trainer.epochs,
            "memory": self.run.memory,
            "send_bytes_s": self.send_bytes_s,
            "split_bytes": self.split_bytes,
            "run": self.own.as_dict(),
            "strategies": [one.as_dict() for one in self.forecasts],
            "left_out": {str(ways): why for ways, why in self.left_out.items()},
            "recommended": None if best is None else {"stages": best.stages, "ways": best.ways, "name": best.name},
        }


def plan_pipeline(run: RunConfig, progress: Progress = SILENT) -> PipelinePlan:
    """Return what the run's processes would do with every way count that divides them, and which one to take.

    The graph is split by METIS for each, and the network's parts are timed on chunks of each, in this process.

    Raises:
        ConfigError: The run does not fit the store; METIS is asked for more chunks than nodes.
        ArtefactError, InputError: The store is missing, or has no features or labels to train on.
    """
    job = open_training(run, overwrite=True)
    shape = Shape.of(run)
    with exact_torch(job.device, process_threads(run, shape)):
        scene = Scene.of(job)
        progress.message("planning: splitting the graph with METIS, timing layers on a few chunks")
        tables = _tables(run, scene.data.topology, scene.model.num_layers)
        rates = ChunkSample.joined([scene.sample(table) for table in tables.values()]).rates()
    limits = _limits(run, shape)
    splits = {ways: split_of(scene.data.topology, table) for ways, table in tables.items()}
    advice = advise(scene.network, splits, rates, shape.world_size, limits)
    return PipelinePlan(
        run=run,
        forecasts=advice.forecasts,
        send_bytes_s=limits.send_bytes_s,
        split_bytes=_split_bytes(scene),
        left_out=advice.left_out,
        recommended=advice.best,
        reason=advice.reason,
    )


def plan_shape(scene: Scene, table: ChunkTable, rates: CostRates) -> PipelinePlan:
    """Return what the run's own shape comes to, by rates that were measured."""
    run, shape = scene.job.run, Shape.of(scene.job.run)
    limits = _limits(run, shape)
    own = forecast(scene.network, split_of(scene.data.topology, table), rates, shape.stages, limits)
    return PipelinePlan(
        run=run,
        forecasts=(own,),
        send_bytes_s=limits.send_bytes_s,
        split_bytes=_split_bytes(scene),
        left_out={},
        recommended=None,
        reason=f"the run asks for {shape.stages} x {shape.ways} processes (stages x ways)",
    )


def _split_bytes(scene: Scene) -> int:
    topology = scene.data.topology
    return split_nbytes(topology.num_nodes, topology.num_edges, chunks=scene.job.run.cluster.num_chunks)


def _limits(run: RunConfig, shape: Shape) -> Limits:
    return Limits(memory=run.memory, send_bytes_s=loopback_bytes_s() if shape.world_size > 1 else None)


def process_threads(run: RunConfig, shape: Shape) -> int:
    """Return the threads of torch that one of the processes has, if all run on this machine; 0 is one per core."""
    if run.trainer.threads or shape.world_size == 1:
        return run.trainer.threads
    return own_threads(run.cluster, shape.world_size)


def _tables(run: RunConfig, topology: Topology, num_layers: int) -> dict[int, ChunkTable]:
    """Return the partitions of the run's own shape, and of all others that its processes can take, by ways."""
    found = {}
    for ways in ways_of(Shape.of(run).world_size):
        stages = Shape.of(run).world_size // ways
        cluster = run.cluster.model_copy(update={"stages": stages, "ways": ways})
        chunks, own = cluster.num_chunks, ways == run.cluster.ways
        possible = stages <= num_layers and chunks % ways == 0 and chunks <= topology.num_nodes
        if possible or own:  # METIS refuses the run's own shape in its own words
            slots = chunks // ways
            chunk = split_graph(topology, ways=ways, slots=slots, seed=run.trainer.seed)
            found[ways] = ChunkTable.of(chunk, ways=ways, slots=slots)
    return found


def split_of(topology: Topology, table: ChunkTable) -> GraphSplit:
    """Return the sizes of a partition."""
    degree = np.diff(topology.indptr)[table.node]
    before = np.concatenate([[0], np.cumsum(degree)])
    edges = np.diff(before[table.chunk_starts]).reshape(table.counts.shape)
    return GraphSplit(nodes=table.counts, edges=edges, mirrors=count_mirrors(topology, table))
