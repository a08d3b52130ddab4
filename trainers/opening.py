"""Opens a run for training: all refusals that need no look into the store's arrays, then the check of those arrays."""

from dataclasses import dataclass
from pathlib import Path

import torch

from graphsys.core.cluster_config import check_chunks
from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError
from graphsys.core.metrics import StageReport
from graphsys.core.progress import Progress
from graphsys.models.base import BatchModel
from graphsys.models.layered import LayeredModel
from graphsys.storage.store import Store
from graphsys.storage.store_check import StoreCheck
from graphsys.trainers.checkpoint import Checkpoint
from graphsys.trainers.device import resolve_device
from graphsys.trainers.model_factory import build_network
from graphsys.trainers.objective import Objective, resolve_objective
from graphsys.trainers.resume import find_earlier, is_finished, training_parents
from graphsys.trainers.store_arrays import check_arrays, training_arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """A run that nothing in its config, its folder and its store's manifest speaks against."""

    run: RunConfig
    store: Store
    node_type: str
    objective: Objective
    device: torch.device
    model: BatchModel | LayeredModel  # on the CPU, with its initial weights
    parents: dict[str, str]  # fingerprints of what the training is made from
    earlier: Checkpoint | None  # where the training goes on; None when it starts from nothing

    @property
    def batch_model(self) -> BatchModel:
        """The network, of a run that trains on batches.

        Raises:
            ConfigError: The run trains on the whole graph.
        """
        if isinstance(self.model, BatchModel):
            return self.model
        raise ConfigError(
            f"trainer.strategy is {self.run.trainer.strategy}, which trains on the whole graph: there are no batches "
            f"to sample or pack; run `graphsys train`"
        )

    @property
    def finished(self) -> bool:
        """Whether an earlier call ended the training."""
        return self.earlier is not None and is_finished(self.run, self.earlier)

    def check(self, progress: Progress, *, features: bool = True) -> StoreCheck:
        """Make sure that the arrays which training and exact evaluation use are as they were written.

        Args:
            features: False leaves out the features.

        Raises:
            CorruptError: One is not; the message names file, chunk and offset.
        """
        if self.store.path != self.run.store:  # a copy, which was checked when it was taken
            return StoreCheck(store=self.store.fingerprint, marks={}, report=StageReport(name="check", skipped=True))
        names = training_arrays(self.store, self.node_type, features=features)
        return check_arrays(self.run, self.store, names, progress)


def open_training(run: RunConfig, *, overwrite: bool = False, place: Path | None = None) -> Training:
    """Open the run; no array of its store is read.

    Args:
        overwrite: Ignore a training that the folder holds.
        place: Where a copy of the store lies whose arrays were checked; None reads it in place.

    Raises:
        StaleArtefactError: The folder holds a training of another store or with other settings.
        ConfigError: The run does not fit the store, or the model cannot be built.
        ArtefactError, CorruptError, DiskError: The store or an artefact of the run cannot be used.
    """
    device = resolve_device(run.trainer)
    store = Store.open(place or run.store)
    info = store.node_type(run.task.node_type)
    objective = resolve_objective(run.task, info)
    if run.trainer.strategy == "pipeline":
        check_chunks(run.cluster.num_chunks, info.num_nodes)
    earlier = None if overwrite else find_earlier(run, store)
    store.features(info.name)
    return Training(
        run=run,
        store=store,
        node_type=info.name,
        objective=objective,
        device=device,
        model=build_network(run, info.num_features, objective.num_outputs),
        parents=training_parents(run, store),
        earlier=earlier,
    )
