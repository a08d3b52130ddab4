"""Rules that follow from the epochs behind: the learning rate, the best epoch, when to stop.

They are functions of the history alone, so a resumed run needs no other state to follow them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from graphsys.core.config import TrainerConfig
from graphsys.core.units import format_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """What one finished epoch left behind."""

    epoch: int
    lr: float
    train: dict[str, float]  # metrics by name, the mean loss among them
    val: dict[str, float] | None = None  # None when the epoch was not validated
    rank: tuple[float, float] | None = None  # of the validation: larger is better

    def note(self, seconds: float) -> str:
        """Return what the epoch came to, for people."""
        shown = {"loss": self.train["loss"], **{f"val {name}": value for name, value in (self.val or {}).items()}}
        values = [f"{name} {value:.4g}" for name, value in shown.items()]
        return f"epoch {self.epoch + 1}: {', '.join([*values, format_seconds(seconds)])}"


def learning_rate(config: TrainerConfig, epoch: int, history: Sequence[EpochRecord]) -> float:
    """Return the learning rate of ``epoch``, counted from 0.

    Args:
        config: Its ``scheduler`` keys count.
        epoch: The epoch to come.
        history: Every epoch before it.
    """
    factors = {
        "none": lambda: 1.0,
        "cosine": lambda: 0.5 * (1 + math.cos(math.pi * epoch / config.epochs)),
        "step": lambda: config.scheduler_gamma ** (epoch // config.scheduler_step),
        "plateau": lambda: config.scheduler_gamma ** _num_plateaus(history, config.scheduler_step),
    }
    return config.lr * factors[config.scheduler]()


def _num_plateaus(history: Sequence[EpochRecord], patience: int) -> int:
    """Return how often ``patience`` results in a row brought nothing better; without validations, the loss counts."""
    validated = [record.rank for record in history if record.rank is not None]
    ranks = validated or [(-record.train["loss"], 0.0) for record in history]
    drops, waited, best = 0, 0, (-math.inf, -math.inf)
    for rank in ranks:
        waited = 0 if rank > best else waited + 1
        best = max(best, rank)
        if waited == patience:
            drops, waited = drops + 1, 0
    return drops


def validation_due(config: TrainerConfig, epoch: int) -> bool:
    """Whether ``epoch``, counted from 0, ends with a validation: every ``trainer.eval_every`` epochs, and the last."""
    return (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs


def best_epoch(history: Sequence[EpochRecord]) -> int | None:
    """Return the first epoch whose validation no other beats; None without validations."""
    ranked = [(record.rank, -record.epoch) for record in history if record.rank is not None]
    return -max(ranked)[1] if ranked else None


def should_stop(config: TrainerConfig, history: Sequence[EpochRecord]) -> bool:
    """Whether all epochs are done, or ``trainer.patience`` validations in a row brought nothing better."""
    if len(history) >= config.epochs:
        return True
    best = best_epoch(history)
    if config.patience is None or best is None:
        return False
    return sum(record.rank is not None for record in history[best + 1 :]) >= config.patience
