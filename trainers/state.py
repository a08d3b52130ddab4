"""The state of a training: what one step changes, and nothing that depends on the clock.

Two runs that took the same steps have the same state, bit by bit, however often they were interrupted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn import Parameter

from graphsys.core.config import TrainerConfig
from graphsys.core.types import LoaderCursor
from graphsys.models.base import BatchModel
from graphsys.trainers.curve import EpochRecord
from graphsys.trainers.optimizer import new_optimizer

OptimizerState = dict[str, dict[str, Any]]  # by the names of the weights


@dataclass(slots=True, kw_only=True)
class TrainState:
    """Everything that the next step depends on."""

    model: BatchModel
    optimizer: torch.optim.Optimizer
    scaler: GradScaler  # passes gradients through unless precision is float16
    step: int = 0  # optimizer steps taken
    next_batch: int = 0  # of the open epoch, over all workers; a checkpoint keeps it in its cursor
    epoch_loss: Tensor  # of the open epoch: sum of its seeds' losses, [] float64 on the model's device
    epoch_rows: int = 0  # and their number
    history: list[EpochRecord] = field(default_factory=list)  # the epochs finished
    best: dict[str, Tensor] | None = None  # weights of the best validation, on the CPU

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)

    def cursor(self, *, rank: int = 0, world_size: int = 1) -> LoaderCursor:
        """Return the next batch to train on; batches before it were taken by one worker or another."""
        return LoaderCursor(epoch=self.epoch, next_batch_id=self.next_batch, rank=rank, world_size=world_size)

    def as_dict(self) -> dict[str, Any]:
        """Return tensors on the CPU, numbers and strings, by name."""
        return {
            "model": detached(self.model.state_dict()),
            "optimizer": optimizer_state(self.model.named_parameters(), self.optimizer),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "epoch_loss": float(self.epoch_loss),
            "epoch_rows": self.epoch_rows,
            "history": [asdict(record) for record in self.history],
            "best": None if self.best is None else {"model": self.best},
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Take over what :meth:`as_dict` returned."""
        self.model.load_state_dict(saved["model"])
        load_optimizer(self.model.named_parameters(), self.optimizer, saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.step = saved["step"]
        self.epoch_loss.fill_(saved["epoch_loss"])
        self.epoch_rows = saved["epoch_rows"]
        self.history = [EpochRecord(**record) for record in saved["history"]]
        self.best = None if saved["best"] is None else saved["best"]["model"]

    def close_epoch(self, record: EpochRecord) -> None:
        """Put an epoch's record into the history and start the next epoch."""
        self.history.append(record)
        self.epoch_loss.zero_()
        self.epoch_rows = 0
        self.next_batch = 0

    def keep_as_best(self) -> None:
        """Copy the present weights as the best ones."""
        self.best = detached(self.model.state_dict())


def new_state(model: BatchModel, config: TrainerConfig, device: torch.device) -> TrainState:
    """Return the state before the first step, the model moved to ``device``."""
    model.to(device)
    optimizer = new_optimizer(model.named_parameters(), config)
    scaler = GradScaler(device.type, enabled=config.precision == "float16")
    loss = torch.zeros((), dtype=torch.float64, device=device)
    return TrainState(model=model, optimizer=optimizer, scaler=scaler, epoch_loss=loss)


def detached(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies on the CPU."""
    # Of their own: the file must not hold more of a shared buffer than the tensor shows.
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def optimizer_state(named: Iterable[tuple[str, Parameter]], optimizer: torch.optim.Optimizer) -> OptimizerState:
    """Return what the optimizer remembers of each weight, on the CPU."""
    return {name: detached(optimizer.state.get(weight, {})) for name, weight in named}


def load_optimizer(
    named: Iterable[tuple[str, Parameter]], optimizer: torch.optim.Optimizer, saved: Mapping[str, dict[str, Any]]
) -> None:
    """Give the optimizer what :func:`optimizer_state` returned; ``named`` are its weights in the order it has them."""
    # torch numbers parameters in the order it was given them, and puts each tensor where it belongs.
    numbered = {index: saved[name] for index, (name, _) in enumerate(named) if saved[name]}
    optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})
