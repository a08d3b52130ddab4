"""One optimizer step, and one pass over a validation split."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from graphsys.core.config import TrainerConfig
from graphsys.core.errors import ConfigError
from graphsys.core.seeding import derive_key
from graphsys.models.adapters import backward_of
from graphsys.models.base import GraphBatch
from graphsys.trainers.device import autocast, seed_torch
from graphsys.trainers.objective import Objective, Scores
from graphsys.trainers.state import TrainState
from graphsys.trainers.team import ALONE, Team


class LabelledBatch(GraphBatch, Protocol):
    """A batch on the model's device, with its place in the run and the labels of its seeds."""

    @property
    def epoch(self) -> int:
        """Epoch that the batch belongs to."""

    @property
    def batch_id(self) -> int:
        """Its position within the epoch."""

    @property
    def y(self) -> Tensor | None:
        """[B] or [B, C] labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What stays the same from step to step."""

    config: TrainerConfig
    objective: Objective
    device: torch.device


def train_step(state: TrainState, batch: LabelledBatch, setting: Setting) -> Tensor:
    """Take one optimizer step; return the batch's mean loss, [] on the device.

    Dropout depends on the run's seed and the batch's position alone, so a resumed run draws what the first one drew.
    """
    return team_step(state, batch, setting, team=ALONE, num_seeds=batch.batch_size)


def team_step(
    state: TrainState, batch: LabelledBatch | None, setting: Setting, *, team: Team, num_seeds: int
) -> Tensor:
    """Take one optimizer step over the batches of all workers; return their seeds' mean loss, [] on the device.

    Args:
        batch: This worker's; None when none is left for it.
        team: The workers, all of which take the step.
        num_seeds: In the batches of all workers.
    """
    state.optimizer.zero_grad(set_to_none=True)
    if batch is None:
        loss, weight = torch.zeros((), device=setting.device), 0.0
        state.scaler.scale(loss)  # it must have been used before its step
    else:
        loss, weight = _backward(state, batch, setting), batch.batch_size / num_seeds
    loss = team.average(state.model, loss, weight)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.step += 1
    state.epoch_loss += loss.double() * num_seeds
    state.epoch_rows += num_seeds
    return loss


def _backward(state: TrainState, batch: LabelledBatch, setting: Setting) -> Tensor:
    """Set the gradients of the batch's mean loss, and return it."""
    seed_torch(derive_key(setting.config.seed, batch.epoch, batch.batch_id), setting.device)
    state.model.train()
    with autocast(setting.device, setting.config):
        output = state.model(batch)
    loss = setting.objective.loss(output, _labels(batch))
    with backward_of(state.model):
        torch.autograd.backward([state.scaler.scale(loss)])
    return loss.detach()


def check_finite(state: TrainState, config: TrainerConfig) -> None:
    """Refuse to go on after a loss or a weight that is no number.

    Raises:
        ConfigError: The open epoch holds such a loss, or the model such a weight.
    """
    if not torch.isfinite(state.epoch_loss):
        raise _diverged(state, config, f"the loss became {float(state.epoch_loss)}")
    # The last step of an epoch may spoil weights whose loss nobody sees.
    spoilt = [name for name, weight in state.model.named_parameters() if not torch.isfinite(weight).all()]
    if spoilt:
        raise _diverged(state, config, f"the weights {spoilt[0]} are no numbers any more")


def _diverged(state: TrainState, config: TrainerConfig, what: str) -> ConfigError:
    return ConfigError(
        f"training broke off in epoch {state.epoch} by step {state.step}: {what}; lower "
        f"trainer.lr (now {config.lr:g}), or use trainer.precision float32 (now {config.precision})"
    )


def validate(state: TrainState, batches: Iterable[LabelledBatch], setting: Setting) -> dict[str, float]:
    """Return the loss and metrics of the model as it is, by name; empty when no row has a label.

    Raises:
        ConfigError: One of them is no number.
    """
    scores = Scores(setting.objective, setting.device)
    for batch in batches:
        score_batch(state, batch, setting, scores)
    found = scores.compute()
    for name, value in found.items():
        if not math.isfinite(value):
            raise _diverged(state, setting.config, f"the {name} of the validation became {value}")
    return found


def score_batch(state: TrainState, batch: LabelledBatch, setting: Setting, scores: Scores) -> None:
    """Add a batch to ``scores``, as the model is now."""
    state.model.eval()
    with torch.inference_mode():
        with autocast(setting.device, setting.config):
            output = state.model(batch)
        scores.update(output, _labels(batch))


def _labels(batch: LabelledBatch) -> Tensor:
    if batch.y is None:
        raise ConfigError("the batches carry no labels; sample them again with `graphsys sample`")
    return batch.y
