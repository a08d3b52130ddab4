"""What autograd keeps of a network for its backward pass, counted while a few nodes run through it."""

import copy
from collections.abc import Callable
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


def _kept(model: LayeredModel, num_features: int, nodes: int) -> list[int]:
    device = next(model.parameters()).device
    model.train()
    count = _Count(list(model.parameters()))
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(count.pack, lambda held: held),
    ):
        features = torch.zeros(nodes, num_features, device=device)
        degree = torch.ones(nodes, dtype=torch.int32, device=device)
        count.ignore(features, degree)
        x, shared = model.encode(features)
        for index in range(model.num_layers):
            count.parts.append(0)
            layer, rows = model.layer(index), NodeRows(x=x, shared=shared, in_degree=degree)
            prepared = layer.prepare(rows)
            x = layer.update(_summed(layer.messages(prepared, rows)), prepared, rows)
        count.parts.append(0)
        model.decode(x)
    return count.parts


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
