"""Which parameters of a network of layers a stage of it needs."""

import torch
from torch import nn

from graphsys.models.layered import LayeredModel


def stage_parameters(model: LayeredModel, num_features: int, first: int, stop: int) -> dict[str, nn.Parameter]:
    """Return by name the parameters that the layers [first, stop) train, with the encoder's and decoder's at the ends.

    What the encoder makes its output of, for one row of zeros, is the encoder's; what is neither its own nor a layer's
    is the decoder's. torch's generator and the model's mode are left alone.
    """
    encoder = _encoder_names(model, num_features)
    stages = {name: _layer_of(name) for name, _ in model.named_parameters()}
    found = {}
    for name, parameter in model.named_parameters():
        layer = stages[name]
        if layer is None:
            layer = 0 if name in encoder else model.num_layers - 1
        if first <= layer < stop:
            found[name] = parameter
    return found


def _layer_of(name: str) -> int | None:
    part, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if part == "layers" else None


def _encoder_names(model: LayeredModel, num_features: int) -> set[str]:
    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        x, shared = model.encode(torch.zeros(1, num_features, device=device))
        roots = [root.sum() for root in (x, shared) if root is not None and root.requires_grad]
        if not roots:
            return set()
        gradients = torch.autograd.grad(roots, list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}
