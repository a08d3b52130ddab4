"""The optimizer of a network of layers, all of it or the part that one stage trains."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import nn

from graphsys.core.config import TrainerConfig

_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
_LAYER_PREFIX = "layers."  # what LayeredModel calls its layers


def new_optimizer(named: Iterable[tuple[str, nn.Parameter]], config: TrainerConfig) -> torch.optim.Optimizer:
    """Return the run's optimizer over some parameters of a model, each with its name in the model.

    torch numbers them in the order given here.
    """
    kind: Callable[..., torch.optim.Optimizer] = _OPTIMIZERS[config.optimizer]
    return kind(parameter_groups(named, config), lr=config.lr)


def parameter_groups(named: Iterable[tuple[str, nn.Parameter]], config: TrainerConfig) -> list[dict[str, Any]]:
    """Return the parameters as torch's optimizers take them, in the order given.

    With ``trainer.layer_weight_decay``, neighbours of another weight decay are groups of their own.
    """
    return [
        {"params": [parameter for _, parameter in group], "weight_decay": decay}
        for decay, group in groupby(named, key=lambda item: _weight_decay(item[0], config))
    ]


def _weight_decay(name: str, config: TrainerConfig) -> float:
    if config.layer_weight_decay is not None and name.startswith(_LAYER_PREFIX):
        return config.layer_weight_decay
    return config.weight_decay
