from typing import Literal

import pytest
import torch
from sklearn import metrics as reference

from graphsys.core.config import TaskConfig
from graphsys.core.errors import ConfigError
from graphsys.storage.store import LabelKind, NodeTypeInfo
from graphsys.trainers.objective import (
    MultiLabel,
    Objective,
    Regression,
    Scores,
    SingleLabel,
    resolve_objective,
)

CPU = torch.device("cpu")


def scored(objective: Objective, output: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    scores = Scores(objective, CPU)
    for start in range(0, len(y), 7):  # uneven batches
        scores.update(output[start : start + 7], y[start : start + 7])
    return scores.compute()


def outputs(columns: int) -> torch.Tensor:
    return torch.randn(50, columns, generator=torch.Generator().manual_seed(0))


def test_single_label_scores_are_those_of_sklearn_over_labelled_rows() -> None:
    output = outputs(3)
    y = torch.arange(50) % 4 - 1
    found, kept = scored(SingleLabel(3), output, y), y >= 0
    guess = output.argmax(1)[kept]
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(y[kept], guess))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(y[kept], guess, average="macro"))
    assert found["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(output[kept], y[kept])), rel=1e-6)


def test_multi_label_scores_are_those_of_sklearn() -> None:
    output = outputs(4)
    y = ((torch.arange(200) % 3) == 0).reshape(50, 4).to(torch.uint8)
    found, guess = scored(MultiLabel(4), output, y), (output > 0).int()
    for average in ("micro", "macro"):
        assert found[f"{average}_f1"] == pytest.approx(reference.f1_score(y, guess, average=average))


@pytest.mark.parametrize("columns", [1, 3])
def test_regression_scores_are_those_of_sklearn_over_rows_with_values(columns: int) -> None:
    output = outputs(columns)
    y = output + torch.linspace(-1, 1, 50)[:, None] + 1000
    y[5] = torch.nan
    found, kept = scored(Regression(columns), output, y.squeeze(1)), torch.arange(50) != 5
    assert found["mae"] == pytest.approx(reference.mean_absolute_error(y[kept], output[kept]))
    assert found["rmse"] == pytest.approx(reference.root_mean_squared_error(y[kept], output[kept]))
    assert found["r2"] == pytest.approx(reference.r2_score(y[kept], output[kept]), rel=1e-5)


def test_one_row_has_no_r2() -> None:
    assert set(scored(Regression(1), outputs(1)[:1], torch.ones(1))) == {"loss", "mae", "rmse"}


def test_no_labelled_row_gives_no_scores() -> None:
    assert scored(SingleLabel(3), outputs(3), torch.full((50,), -1)) == {}


def test_rank_prefers_the_better_metric_then_the_lower_loss() -> None:
    good = {"accuracy": 0.9, "loss": 0.5}
    assert SingleLabel(3).rank(good) > SingleLabel(3).rank({"accuracy": 0.8, "loss": 0.1})
    assert SingleLabel(3).rank(good) > SingleLabel(3).rank({"accuracy": 0.9, "loss": 0.6})
    assert Regression(1).rank({"rmse": 1.0, "loss": 1.0}) > Regression(1).rank({"rmse": 2.0, "loss": 4.0})


@pytest.mark.parametrize("objective", [SingleLabel(3), MultiLabel(3), Regression(3)])
def test_losses_accept_half_precision_outputs(objective: Objective) -> None:
    y: dict[type[Objective], torch.Tensor] = {
        SingleLabel: torch.zeros(50, dtype=torch.int64),
        MultiLabel: torch.zeros(50, 3, dtype=torch.uint8),
        Regression: torch.zeros(50, 3),
    }
    loss = objective.loss(outputs(3).bfloat16(), y[type(objective)])
    assert loss.dtype == torch.float32


def info(kind: LabelKind, num_classes: int = 3) -> NodeTypeInfo:
    return NodeTypeInfo(
        name="paper", num_nodes=9, num_features=2, label_kind=kind, num_classes=num_classes, id_kind="identity"
    )


@pytest.mark.parametrize(
    ("task", "kind", "expected"),
    [
        ("node_classification", "class", SingleLabel),
        ("node_classification", "multilabel", MultiLabel),
        ("node_regression", "value", Regression),
    ],
)
def test_the_objective_follows_from_task_and_labels(
    task: Literal["node_classification", "node_regression"], kind: LabelKind, expected: type[Objective]
) -> None:
    objective = resolve_objective(TaskConfig(type=task), info(kind))
    assert type(objective) is expected
    assert objective.num_outputs == 3


@pytest.mark.parametrize(
    ("task", "kind", "num_classes", "message"),
    [
        ("node_classification", "value", 1, "needs classes or label vectors, and node type 'paper' has labels of kind"),
        ("node_regression", "class", 3, "needs values"),
        ("node_classification", "none", 0, "has no labels"),
        ("node_classification", "class", 1, "one class only"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_refused(
    task: Literal["node_classification", "node_regression"], kind: LabelKind, num_classes: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_objective(TaskConfig(type=task), info(kind, num_classes))
