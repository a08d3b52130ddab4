"""Tries a user's network of layers on a few rows, before the widths that it declares size buffers and messages."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from graphsys.core.errors import ConfigError
from graphsys.models.layered import LayeredModel, MessageLayer, NodeRows
from graphsys.models.user_code import user_code

_ROWS = 3


def check_layered(model: LayeredModel, what: str, shape: tuple[int, int, int]) -> None:
    """Run every part of ``model`` on three rows and compare what comes out with what it declares.

    Args:
        model: The user's network; its dropout draws from torch's generator.
        what: What the network is called in messages, such as ``model.class nets:Net``.
        shape: Columns of the features, columns of the outputs, number of layers asked for.

    Raises:
        ConfigError: A part is missing or fails, returns another shape or type than declared, mixes rows by a batch
            norm, or has parameters in common with another layer.
    """
    num_features, num_outputs, num_layers = shape
    layers = _layers(model, what)
    if len(layers) != num_layers:
        raise ConfigError(f"{what} has {len(layers)} layers and model.num_layers is {num_layers}; make them equal")
    _check_modules(model, what)
    with user_code(f"{what}: encode(x)"):
        found: object = model.encode(torch.zeros(_ROWS, num_features))
    if not (isinstance(found, tuple) and len(found) == 2):
        raise ConfigError(f"{what}: encode(x) returned {_named(found)}; expected (x, shared rows or None)")
    x, shared = found
    hidden = _width(model, "hidden_channels", what)
    x = _checked(x, hidden, f"{what}: encode(x)", "hidden_channels")
    if model.shared_channels or shared is not None:
        shared = _checked(shared, model.shared_channels, f"{what}: encode(x), second part", "shared_channels")
    for index, layer in enumerate(layers):
        rows = NodeRows(x=x, shared=shared, in_degree=torch.arange(_ROWS, dtype=torch.int32))
        x = _run_layer(layer, rows, f"{what}: layers[{index}]")
        if x.shape[1] != hidden:
            raise ConfigError(f"{what}: layers[{index}].out_channels is {x.shape[1]}, hidden_channels is {hidden}")
    with user_code(f"{what}: decode(x)"):
        outputs: object = model.decode(x)
    _checked(outputs, num_outputs, f"{what}: decode(x)", "the number of outputs")


def _layers(model: LayeredModel, what: str) -> list[MessageLayer]:
    found = getattr(model, "layers", None)
    if not isinstance(found, nn.ModuleList) or not found:
        raise ConfigError(f"{what}: layers is {_named(found)}; set it to a torch.nn.ModuleList of one layer or more")
    layers = [layer for layer in found if isinstance(layer, MessageLayer)]
    if len(layers) != len(found):
        raise ConfigError(f"{what}: layers holds modules that are no MessageLayer; derive every one from it")
    return layers


def _check_modules(model: LayeredModel, what: str) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            raise ConfigError(
                f"{what}: {name} is a {type(module).__name__}, which mixes the rows of different nodes; nodes come in "
                f"parts here, so take a LayerNorm"
            )
    names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        other = names.setdefault(id(parameter), name)
        if _part(name) != _part(other):
            raise ConfigError(
                f"{what}: {name} and {other} are one parameter; layers may run in different processes, so give each "
                f"its own"
            )


def _part(name: str) -> str:
    """Return what of a model a parameter belongs to: one layer, or encoder and decoder."""
    return ".".join(name.split(".")[:2]) if name.startswith("layers.") else ""


def _run_layer(layer: MessageLayer, rows: NodeRows, what: str) -> Tensor:
    with user_code(f"{what}.prepare(rows)"):
        prepared = layer.prepare(rows)
    with user_code(f"{what}.messages(prepared, rows)"):
        messages: object = layer.messages(prepared, rows)
    message_channels = _width(layer, "message_channels", what)
    total = _checked(messages, message_channels, f"{what}.messages(prepared, rows)", "message_channels")
    with user_code(f"{what}.update(total, prepared, rows)"):
        out: object = layer.update(total, prepared, rows)
    return _checked(out, _width(layer, "out_channels", what), f"{what}.update(total, prepared, rows)", "out_channels")


def _width(module: nn.Module, name: str, what: str) -> int:
    found = getattr(module, name, None)
    if not isinstance(found, int) or found < 1:
        raise ConfigError(f"{what}: {name} is {found!r}; set it to the number of columns")
    return found


def _checked(found: object, width: int, call: str, name: str) -> Tensor:
    if not isinstance(found, Tensor) or tuple(found.shape) != (_ROWS, width) or found.dtype != torch.float32:
        raise ConfigError(
            f"{call} returned {_named(found)} for {_ROWS} nodes; expected float32 of shape [{_ROWS}, {width}], as "
            f"{name} says"
        )
    return found


def _named(found: object) -> str:
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} of shape {list(found.shape)}"
    return "nothing" if found is None else f"a {type(found).__name__}"
