"""What a task means for training: the loss, the metrics, and which of them picks the best weights."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from graphsys.core.config import TaskConfig
from graphsys.core.errors import ConfigError, InputError
from graphsys.core.types import NodeIds
from graphsys.storage.store import LabelKind, NodeTypeInfo, Store

if TYPE_CHECKING:  # torchmetrics takes over a second to import, and a process that scores nothing does without it
    from torchmetrics import MetricCollection


class Objective(ABC):
    """The loss and the metrics of one task; holds no state of a training."""

    monitor: ClassVar[str]  # metric that picks the best weights
    direction: ClassVar[Literal[1, -1]] = 1  # 1: higher is better

    def __init__(self, num_outputs: int) -> None:
        self.num_outputs = num_outputs  # columns of the model's output

    @abstractmethod
    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of [B, num_outputs] outputs of any float type against the labels of B seeds."""

    @abstractmethod
    def labelled(self, y: Tensor) -> Tensor:
        """Return [B] bool: which rows of ``y`` carry a label."""

    @abstractmethod
    def collection(self) -> "MetricCollection":
        """Return fresh metrics, named as in logs and results.

        They score what one process saw: ``sync_on_compute`` is off, or torchmetrics would wait for other workers.
        """

    @abstractmethod
    def update(self, metrics: "MetricCollection", output: Tensor, y: Tensor) -> None:
        """Add labelled rows to ``metrics``."""

    @abstractmethod
    def said(self, output: Tensor) -> Tensor:
        """Return what users are told of outputs [Q, num_outputs]: probabilities, or values; float32 on the CPU."""

    def load_metrics(self) -> None:
        """Import the metrics' library, which takes about a second, lest a stage's seconds hold it."""
        self.collection()

    def rank(self, metrics: dict[str, float]) -> tuple[float, float]:
        """Return what is larger for better metrics; the loss decides between equal ones."""
        return self.direction * metrics[self.monitor], -metrics["loss"]


class SingleLabel(Objective):
    """Cross-entropy over classes; y is [B] int64, -1 where there is no label."""

    monitor = "accuracy"

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return functional.cross_entropy(output.float(), y)

    def labelled(self, y: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return y >= 0

    def collection(self) -> "MetricCollection":
        """See :class:`Objective`."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(self.num_outputs, average="micro", sync_on_compute=False),
                "macro_f1": MulticlassF1Score(self.num_outputs, average="macro", sync_on_compute=False),
            }
        )

    def said(self, output: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return output.float().cpu().softmax(dim=1)

    def update(self, metrics: "MetricCollection", output: Tensor, y: Tensor) -> None:
        """See :class:`Objective`."""
        metrics.update(output.argmax(dim=1), y)


class MultiLabel(Objective):
    """Binary cross-entropy per label; y is [B, C] uint8 of 0 and 1."""

    monitor = "micro_f1"

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return functional.binary_cross_entropy_with_logits(output.float(), y.float())

    def labelled(self, y: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return torch.ones(y.shape[0], dtype=torch.bool, device=y.device)

    def collection(self) -> "MetricCollection":
        """See :class:`Objective`."""
        from torchmetrics import MetricCollection
        from torchmetrics.classification import MultilabelF1Score

        return MetricCollection(
            {
                f"{average}_f1": MultilabelF1Score(self.num_outputs, average=average, sync_on_compute=False)
                for average in ("micro", "macro")
            }
        )

    def said(self, output: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return output.float().cpu().sigmoid()

    def update(self, metrics: "MetricCollection", output: Tensor, y: Tensor) -> None:
        """See :class:`Objective`."""
        metrics.update((output > 0).long(), y.long())


class Regression(Objective):
    """Mean squared error; y is [B] or [B, C] float32, NaN where there is no value."""

    monitor = "rmse"
    direction = -1

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return functional.mse_loss(output.float(), y.reshape(output.shape))

    def labelled(self, y: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return ~y.reshape(y.shape[0], -1).isnan().any(dim=1)

    def collection(self) -> "MetricCollection":
        """See :class:`Objective`."""
        from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection, R2Score

        metrics = MetricCollection(
            {
                "mae": MeanAbsoluteError(sync_on_compute=False),
                "rmse": MeanSquaredError(squared=False, sync_on_compute=False),
                "r2": R2Score(sync_on_compute=False),
            },
            compute_groups=False,
        )
        # R2 subtracts sums of squares; in float32 that loses every digit on a large graph.
        return metrics.set_dtype(torch.float64)

    def said(self, output: Tensor) -> Tensor:
        """See :class:`Objective`."""
        return output.float().cpu()

    def update(self, metrics: "MetricCollection", output: Tensor, y: Tensor) -> None:
        """See :class:`Objective`."""
        metrics.update(output.double(), y.reshape(output.shape).double())


class Scores:
    """Accumulates the loss and the metrics of one split; rows without a label are left out."""

    def __init__(self, objective: Objective, device: torch.device) -> None:
        self._objective = objective
        self._metrics = objective.collection().to(device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self.num_rows = 0

    def update(self, output: Tensor, y: Tensor) -> None:
        """Add a batch: [B, num_outputs] outputs and the labels of its B rows, on the device of the metrics."""
        mask = self._objective.labelled(y)
        count = int(mask.sum())
        if count == 0:
            return
        output, y = output[mask].float(), y[mask]
        self._objective.update(self._metrics, output, y)
        self._loss += self._objective.loss(output, y).double() * count
        self.num_rows += count

    def compute(self) -> dict[str, float]:
        """Return the mean loss and every metric by name; empty when no row had a label."""
        if self.num_rows == 0:
            return {}
        told = {name: metric for name, metric in self._metrics.items() if name != "r2" or self.num_rows > 1}
        # torchmetrics divides in float32: digits past the seventh are noise.
        values = {name: round(float(metric.compute()), 7) for name, metric in told.items()}
        return {"loss": float(self._loss) / self.num_rows, **values}


_OBJECTIVES: dict[tuple[str, LabelKind], type[Objective]] = {
    ("node_classification", "class"): SingleLabel,
    ("node_classification", "multilabel"): MultiLabel,
    ("node_regression", "value"): Regression,
}
_WANTED = {"node_classification": "classes or label vectors", "node_regression": "values"}


def resolve_objective(task: TaskConfig, info: NodeTypeInfo) -> Objective:
    """Return the objective that ``task`` has on the labels of a node type.

    Raises:
        ConfigError: The type has no labels, labels of another kind, or one class only.
    """
    kind = _OBJECTIVES.get((task.type, info.label_kind))
    if kind is None:
        found = "no labels" if info.label_kind == "none" else f"labels of kind '{info.label_kind}'"
        raise ConfigError(
            f"task.type {task.type} needs {_WANTED[task.type]}, and node type '{info.name}' has {found}; "
            f"change task.type, or import the graph with such labels"
        )
    if kind is SingleLabel and info.num_classes < 2:
        raise ConfigError(f"node type '{info.name}' has labels of one class only; classification needs two or more")
    return kind(info.num_classes)


def training_nodes(store: Store, node_type: str) -> NodeIds:
    """Return the ascending ids [*] of the training nodes; import made sure that they have labels.

    Raises:
        InputError: There is none.
    """
    node = store.split(node_type, "train")
    if node.size == 0:
        raise InputError(f"{store.path}: no '{node_type}' node is in the train split; import the graph with a split")
    return node
