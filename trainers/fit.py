"""Training, whole: from a run's config to the checkpoint it ends with, continued where an earlier call broke off."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from graphsys.core.config import RunConfig
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress
from graphsys.storage.store import Store
from graphsys.trainers.checkpoint import Checkpoint, load_checkpoint
from graphsys.trainers.curve import EpochRecord
from graphsys.trainers.device import exact_torch, resolve_device
from graphsys.trainers.feed import WindowFeed, open_feed
from graphsys.trainers.logs import RunLog, read_log
from graphsys.trainers.loop import TrainingLoop
from graphsys.trainers.model_factory import build_model
from graphsys.trainers.objective import resolve_objective, training_nodes
from graphsys.trainers.resume import find_earlier, forget, is_finished, take_over
from graphsys.trainers.run_folder import RunFolder, write_config
from graphsys.trainers.state import TrainState, new_state
from graphsys.trainers.step import Setting


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training ended with."""

    checkpoint: Path
    epochs: int  # epochs run, over all calls
    epoch_s: tuple[float, ...]  # seconds of each epoch, validation left out
    best_epoch: int | None  # counted from 0; None without validation
    train: dict[str, float]  # metrics of the last epoch by name
    val: dict[str, float]  # metrics of the best epoch's validation; empty without
    history: tuple[EpochRecord, ...]
    stages: dict[str, StageReport]  # sample, pack, train
    skipped: bool  # True when an earlier call had finished it

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "checkpoint": str(self.checkpoint),
            "epochs": self.epochs,
            "epoch_s": list(self.epoch_s),
            "best_epoch": self.best_epoch,
            "train": self.train,
            "val": self.val,
            "history": [asdict(record) for record in self.history],
            "stages": {name: report.as_dict() for name, report in self.stages.items()},
            "skipped": self.skipped,
        }
