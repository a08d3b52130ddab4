"""The optimizer of a run."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from graphsys.core.config import TrainerConfig

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_LAYER_PREFIX = "layers."  # what LayeredModel calls its layers


def new_optimizer(named: Iterable[tuple[str, nn.Parameter]], config: TrainerConfig) -> torch.optim.Optimizer:
    """Return the optimizer of the parameters, which may be a part of a model's under the names that they have in it."""
    kind: Callable[..., torch.optim.Optimizer] = _OPTIMIZERS[config.optimizer]
    return kind(parameter_groups(named, config), lr=config.lr)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], config: TrainerConfig) -> list[dict[str, Any]]:
    """Return the parameters as torch's optimizers take them, by weight decay, in the order given within each group.

    With ``trainer.layer_weight_decay`` there are two groups: layers, then encoder and decoder; none is empty.
    """
    parameters = list(named)
    if config.layer_weight_decay is None:
        return [{"params": [parameter for _, parameter in parameters], "weight_decay": config.weight_decay}]
    layers = [parameter for name, parameter in parameters if name.startswith(_LAYER_PREFIX)]
    others = [parameter for name, parameter in parameters if not name.startswith(_LAYER_PREFIX)]
    groups = [(layers, config.layer_weight_decay), (others, config.weight_decay)]
    return [{"params": params, "weight_decay": decay} for params, decay in groups if params]
