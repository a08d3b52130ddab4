"""The batches of a run, for training and for validation: plans, windows and loaders put together."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import fields
from types import TracebackType
from typing import Self

import torch

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport
from graphsys.core.progress import Progress
from graphsys.core.types import LoaderCursor, NodeIds
from graphsys.samplers.schedule import Schedule
from graphsys.storage.features import FeatureReader
from graphsys.storage.store import Store
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.budget import RunPlans, plan_run, train_schedule, val_schedule
from graphsys.trainers.loader import Loader, LoaderStats
from graphsys.trainers.plan import PackPlan
from graphsys.trainers.rows import open_reader
from graphsys.trainers.windows import WindowSet

_START = LoaderCursor(epoch=0, next_batch_id=0)


class WindowFeed:
    """Gives out mini-batches from windows on disk; see :class:`graphsys.trainers.loop.Feed`.

    Args:
        run: the run.
        store: its store.
        node: [*] global ids of the training nodes.
        with_degree: whether batches carry in-degrees.
        device: where the batches' tensors go.
        overwrite: replace windows of another store or other sampler settings instead of refusing them.

    Raises:
        MemoryBudgetError, ConfigError: The budgets are too small; the message says what would do.
        ArtefactError: The store has no features.
    """

    def __init__(
        self, run: RunConfig, store: Store, node: NodeIds, *, with_degree: bool, device: torch.device, overwrite: bool
    ) -> None:
        name = store.node_type(run.task.node_type).name
        self._memory = run.memory
        self._device = device
        self._features = store.features(name)
        self._reader: FeatureReader | None = None
        self.stats = LoaderStats()  # of the loaders closed so far, training and validation together
        schedules = _schedules(run, node, store.split(name, "val"))
        edge_type = store.edge_type_within(name)
        topology = store.topology(edge_type)
        self.plans = plan_run(run, store, topology, *schedules)
        if self.plans.train.mode == "memory":
            topology = store.topology(edge_type, in_memory=True)

        def windows(split: str, schedule: Schedule, plan: PackPlan) -> WindowSet:
            return WindowSet(
                run,
                store,
                schedule,
                plan,
                split=split,
                topology=topology,
                with_degree=with_degree,
                overwrite=overwrite,
            )

        self._train = windows("train", schedules[0], self.plans.train)
        self._val = self._open_val(windows, schedules[1], self.plans)
