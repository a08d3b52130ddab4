"""What autograd keeps of a network for its backward pass, counted while a few nodes run through it."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from graphsys.models.layered import LayeredModel, NodeRows

_FEW, _MANY = 64, 192  # nodes; what does not grow with them is no row


def kept_bytes(model: LayeredModel, num_features: int) -> tuple[int, ...]:
    """Return [L + 2] the bytes per node that are kept of the encoder, of each layer and of the decoder.

    A tensor that several parts use counts for the first; features and weights do not count. The model and torch's
    generator are left as they are.
    """
    few, many = (_kept(copy.deepcopy(model), num_features, nodes) for nodes in (_FEW, _MANY))
    return tuple((more - less) // (_MANY - _FEW) for less, more in zip(few, many, strict=True))


def load_kernels(model: LayeredModel, num_features: int) -> None:
    """Run a few nodes forward and backward, so that what libraries load for it is loaded and no data of a training.

    The model and torch's generator are left as they are.
    """
    model = copy.deepcopy(model)
    with _drawing_apart(model), torch.enable_grad():
        outputs = _forward(model, _features(model, num_features, _FEW), lambda: None)
        torch.autograd.backward([outputs], [torch.ones_like(outputs)])


def _kept(model: LayeredModel, num_features: int, nodes: int) -> list[int]:
    features = _features(model, num_features, nodes)
    count = _Count([*model.parameters(), features])
    with (
        _drawing_apart(model),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(count.pack, lambda held: held),
    ):
        _forward(model, features, lambda: count.parts.append(0))
    return count.parts


def _features(model: LayeredModel, num_features: int, nodes: int) -> Tensor:
    return torch.zeros(nodes, num_features, device=next(model.parameters()).device)


def _drawing_apart(model: LayeredModel) -> AbstractContextManager[None]:
    device = next(model.parameters()).device
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _forward(model: LayeredModel, features: Tensor, next_part: Callable[[], object]) -> Tensor:
    """Return the outputs of nodes that hear themselves alone; ``next_part`` is called between the parts."""
    model.train()
    degree = torch.ones(features.shape[0], dtype=torch.int32, device=features.device)
    x, shared = model.encode(features)
    for index in range(model.num_layers):
        next_part()
        layer, rows = model.layer(index), NodeRows(x=x, shared=shared, in_degree=degree)
        prepared = layer.prepare(rows)
        x = layer.update(_summed(layer.messages(prepared, rows)), prepared, rows)
    next_part()
    return model.decode(x)


class _Count:
    """Adds up the tensors that autograd keeps, each memory once."""

    def __init__(self, ignored: list[Tensor]) -> None:
        self.parts = [0]  # bytes of each part so far
        self._held: list[Tensor] = []  # so that no memory is given out twice
        self._known: set[int] = set()
        self.ignore(*ignored)

    def ignore(self, *tensors: Tensor) -> None:
        self._held += tensors
        self._known |= {tensor.untyped_storage().data_ptr() for tensor in tensors}

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._known:
            self.ignore(tensor)
            self.parts[-1] += storage.nbytes()
        return tensor


def _summed(message: Tensor) -> Tensor:
    apply: Callable[[Tensor], Tensor] = _Sum.apply
    return apply(message)


class _Sum(torch.autograd.Function):
    """Stands for the sum along in-edges, of which nothing is kept but the result."""

    @staticmethod
    def forward(ctx: Any, message: Tensor) -> Tensor:  # noqa: ARG004 - what autograd calls it with
        return message.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        return grads[0]
