"""The problems of the benchmarks on whole graphs: a public graph, a split, a deep network, and how it is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from graphsys.core.config import ModelConfig, TrainerConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """A graph with one split, and the network and training that suit it."""

    x: Tensor  # [N, D] float32
    indptr: Tensor  # [N + 1] int64
    indices: Tensor  # [E] int32 sources by destination
    y: Tensor  # [N] int64
    split: dict[str, Tensor]  # name -> node ids, int64
    model: ModelConfig
    trainer: TrainerConfig  # patience counts validations, of which there is one every eval_every epochs
    selection: str  # what the best epoch is chosen by: loss, accuracy or roc_auc on the validation nodes


def cora(data: Path, split: int) -> Problem:
    """Return Cora with GCNII; the settings are those of the paper."""
    del split  # there is one
    with np.load(data / "cora.npz") as arrays:
        content = dict(arrays)
    x = dense_features(content)
    trainer = {"epochs": 1000, "lr": 0.01, "weight_decay": 5e-4, "layer_weight_decay": 0.01, "patience": 100}
    return Problem(
        **graph_of(content, x / x.sum(dim=1, keepdim=True).clamp(min=1)),
        split={name: torch.from_numpy(content[name]).long() for name in ("train", "val", "test")},
        model=ModelConfig(name="gcnii", hidden=64, num_layers=32, dropout=0.6, alpha=0.1, theta=0.5),
        trainer=TrainerConfig.model_validate(trainer),
        selection="loss",
    )


def minesweeper(data: Path, split: int) -> Problem:
    """Return minesweeper with a deep GraphSAGE."""
    with np.load(data / "minesweeper.npz") as arrays:
        content = dict(arrays)
    masks = {name: content[f"{name}_masks"][split] for name in ("train", "val", "test")}
    return Problem(
        **graph_of(content, dense_features(content)),
        split={name: torch.from_numpy(np.flatnonzero(mask)) for name, mask in masks.items()},
        model=ModelConfig(name="deep_sage", hidden=64, num_layers=8, dropout=0.2),
        trainer=TrainerConfig(epochs=300, lr=3e-3, eval_every=5, patience=20),
        selection="roc_auc",
    )


PROBLEMS: dict[str, Callable[[Path, int], Problem]] = {"cora": cora, "minesweeper": minesweeper}


def dense_features(content: dict[str, npt.NDArray[np.generic]]) -> Tensor:
    """Return the features [N, D] float32 of their sparse rows."""
    x = np.zeros(tuple(content["x_shape"].tolist()), np.float32)
    row = np.repeat(np.arange(x.shape[0]), np.diff(content["x_indptr"]))
    x[row, content["x_indices"]] = content["x_data"]
    return torch.from_numpy(x)


def graph_of(content: dict[str, npt.NDArray[np.generic]], x: Tensor) -> dict[str, Tensor]:
    """Return the in-edges by destination, the features and the labels, as :class:`Problem` takes them."""
    src, dst = content["edge_index"]
    order = np.lexsort((src, dst))
    degree = np.bincount(dst, minlength=x.shape[0])
    return {
        "x": x,
        "indptr": torch.from_numpy(np.concatenate([[0], degree.cumsum()])),
        "indices": torch.from_numpy(src[order].astype(np.int32)),
        "y": torch.from_numpy(content["y"].astype(np.int64)),
    }
