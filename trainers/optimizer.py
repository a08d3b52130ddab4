"""The optimizer of a network of layers, all of it or the part that one stage trains."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

import torch
from torch import nn

from graphsys.core.config import TrainerConfig


def _plain(kind: type[torch.optim.Optimizer], name: str) -> Callable[..., Any]:
    """Return a method of one of torch's optimizers as it is below its decorator."""
    method = getattr(kind, name)
    found: Callable[..., Any] = getattr(method, "__wrapped__", method)
    return found


def _uncompiled(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return the optimizer without what keeps torch's compiler off it.

    Nothing here is compiled, and the compiler is loaded for that alone: two seconds and 65 MiB in every process.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    step = torch.no_grad()(_plain(kind, "step"))
    return type(kind.__name__, (kind,), {"step": step, **{name: _plain(kind, name) for name in names}})


_OPTIMIZERS = {"adam": _uncompiled(torch.optim.Adam), "adamw": _uncompiled(torch.optim.AdamW)}
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
