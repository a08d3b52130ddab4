from typing import Any

import pytest

from graphsys.core.config import TrainerConfig
from graphsys.trainers.curve import EpochRecord, best_epoch, learning_rate, should_stop, validation_due


def history(*ranks: float | None) -> list[EpochRecord]:
    return [
        EpochRecord(epoch=epoch, lr=0.1, train={"loss": 1.0}, rank=None if rank is None else (rank, 0.0))
        for epoch, rank in enumerate(ranks)
    ]


def config(**values: Any) -> TrainerConfig:
    return TrainerConfig.model_validate({"epochs": 10, "lr": 1.0, **values})


def test_the_learning_rate_is_constant_without_a_schedule() -> None:
    assert [learning_rate(config(), epoch, []) for epoch in (0, 9)] == [1.0, 1.0]


def test_cosine_starts_at_lr_halves_midway_and_ends_near_zero() -> None:
    rates = [learning_rate(config(scheduler="cosine"), epoch, []) for epoch in range(10)]
    assert rates[0] == 1.0
    assert rates[5] == pytest.approx(0.5)
    assert rates[9] == pytest.approx(0.0245, abs=1e-3)


def test_step_drops_by_gamma_every_so_many_epochs() -> None:
    settings = config(scheduler="step", scheduler_step=3, scheduler_gamma=0.1)
    assert [learning_rate(settings, epoch, []) for epoch in (0, 2, 3, 6)] == pytest.approx([1, 1, 0.1, 0.01])


def test_plateau_drops_after_validations_without_improvement_and_waits_anew() -> None:
    settings = config(scheduler="plateau", scheduler_step=2)
    ranks = [0.1, 0.2, 0.2, None, 0.1, 0.2, 0.15, 0.3, 0.3]
    rates = [learning_rate(settings, count, history(*ranks[:count])) for count in range(len(ranks) + 1)]
    assert rates == [1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_plateau_follows_the_training_loss_when_nothing_is_validated() -> None:
    settings = config(scheduler="plateau", scheduler_step=2)
    assert learning_rate(settings, 3, history(None, None, None)) == 0.5  # the loss stayed at 1.0 twice


def test_the_best_epoch_is_the_first_of_the_best_validations() -> None:
    assert best_epoch(history(0.1, None, 0.7, 0.7, 0.2)) == 2
    assert best_epoch(history(None, None)) is None


@pytest.mark.parametrize(
    ("patience", "ranks", "stops"),
    [
        (None, [0.9, 0.1, 0.1, 0.1], False),
        (2, [0.9, 0.1], False),
        (2, [0.9, None, None, 0.1], False),
        (2, [0.9, 0.1, None, 0.9], True),
        (2, [0.1, 0.05, 0.2, 0.1], False),
        (1, [None, None], False),
        (None, [None] * 10, True),
    ],
)
def test_training_stops_at_the_last_epoch_or_when_patience_ends(
    patience: int | None, ranks: list[float | None], stops: bool
) -> None:
    assert should_stop(config(patience=patience), history(*ranks)) is stops


def test_epochs_are_validated_now_and_then_and_at_the_end() -> None:
    settings = config(eval_every=4)
    assert [epoch for epoch in range(10) if validation_due(settings, epoch)] == [3, 7, 9]


def test_an_epoch_is_told_in_a_line() -> None:
    record = EpochRecord(epoch=2, lr=0.1, train={"loss": 0.52345}, val={"accuracy": 0.75})
    assert record.note(2.0) == "epoch 3: loss 0.5234, val accuracy 0.75, 2.0 s"
