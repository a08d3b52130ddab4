"""Builds the network of a run: a built-in one by name, or any user module by import path."""

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from graphsys.core.config import WHOLE_GRAPH_MODELS, ModelConfig, RunConfig
from graphsys.core.errors import ConfigError
from graphsys.core.seeding import derive_key
from graphsys.models.adapters import DglAdapter, PygAdapter, adapt_batch_model
from graphsys.models.base import BatchModel
from graphsys.models.deep_gcn import DeepGCN
from graphsys.models.deep_sage import DeepSAGE
from graphsys.models.gat import GAT
from graphsys.models.gcn import GCN
from graphsys.models.gcnii import GCNII
from graphsys.models.gin import GIN
from graphsys.models.layered import LayeredModel
from graphsys.models.layered_check import check_layered
from graphsys.models.resgcn import ResGCN
from graphsys.models.sage import GraphSAGE
from graphsys.models.user_code import user_code
from graphsys.storage.manifest import file_checksum, fingerprint

_BUILT_IN: dict[str, type[GraphSAGE] | type[GCN] | type[GIN]] = {"sage": GraphSAGE, "gcn": GCN, "gin": GIN}
_INITIAL_WEIGHTS = 0x1417  # keeps the draws of the initial weights apart from those of any step


def build_network(run: RunConfig, num_features: int, num_outputs: int) -> BatchModel | LayeredModel:
    """Return the run's network on the CPU: for a whole graph if its strategy is ``pipeline``, else for batches.

    Raises:
        ConfigError: As :func:`build_model` and :func:`build_layered_model`.
    """
    if run.trainer.strategy == "pipeline":
        return build_layered_model(run.model, num_features, num_outputs, seed=run.trainer.seed)
    return build_model(run, num_features, num_outputs)


def build_model(run: RunConfig, num_features: int, num_outputs: int) -> BatchModel:
    """Return the run's network on the CPU, its initial weights drawn from ``trainer.seed`` alone.

    Args:
        run: Its ``model`` section and number of hops count.
        num_features: Columns D of the features.
        num_outputs: Columns of the output: classes, labels or targets.

    Raises:
        ConfigError: The user's class cannot be imported, is no ``torch.nn.Module``, or refuses its arguments.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_key(run.trainer.seed, _INITIAL_WEIGHTS))
        if run.model.class_path is None:
            return _built_in(run.model, num_features, num_outputs, run.num_layers)
        return _user_model(run.model.class_path, run.model, num_features, num_outputs, run.num_layers)


def _built_in(config: ModelConfig, num_features: int, num_outputs: int, num_layers: int) -> BatchModel:
    shape = (num_features, config.hidden, num_outputs, num_layers)
    if config.name == "gat":
        return GAT(*shape, dropout=config.dropout, heads=config.heads)
    return _BUILT_IN[config.name](*shape, dropout=config.dropout)


def _user_model(path: str, config: ModelConfig, num_features: int, num_outputs: int, num_layers: int) -> BatchModel:
    module = _user_module(path, config, num_features, num_outputs, num_layers)
    if isinstance(module, LayeredModel):
        raise ConfigError(
            f"model.class {path} is a LayeredModel, which is trained on the whole graph; set trainer.strategy to "
            f"pipeline"
        )
    if not isinstance(module, BatchModel):
        adapter = PygAdapter if config.style == "pyg" else DglAdapter
        return adapter(module, num_layers=num_layers, out_channels=num_outputs)
    if module.num_layers != num_layers:
        raise ConfigError(
            f"model.class {path} has {module.num_layers} layers and sampler.fanouts has {num_layers} entries; "
            f"give one fanout per layer"
        )
    return adapt_batch_model(module, out_channels=num_outputs)


def build_layered_model(config: ModelConfig, num_features: int, num_outputs: int, *, seed: int) -> LayeredModel:
    """Return the network for a whole graph on the CPU, its initial weights drawn from ``seed`` alone.

    Args:
        config: Names a network of layers, and how many layers it has.
        num_features: Columns D of the features.
        num_outputs: Columns of the output: classes, labels or targets.
        seed: ``trainer.seed``.

    Raises:
        ConfigError: The config names no number of layers, or a network for batches; or the user's class cannot be
            imported, refuses its arguments, or breaks a promise of :class:`LayeredModel`.
    """
    if config.num_layers is None:
        raise ConfigError("model.num_layers is missing; say how many layers the network on the whole graph has")
    shape = (num_features, num_outputs, config.num_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_key(seed, _INITIAL_WEIGHTS))
        if config.class_path is None:
            return _built_in_layered(config, *shape)
        return _user_layered(config.class_path, config, *shape)


def _built_in_layered(config: ModelConfig, num_features: int, num_outputs: int, num_layers: int) -> LayeredModel:
    shape = (num_features, config.hidden, num_outputs, num_layers)
    match config.name:
        case "deep_gcn":
            return DeepGCN(*shape, dropout=config.dropout)
        case "deep_sage":
            return DeepSAGE(*shape, dropout=config.dropout)
        case "gcnii":
            return GCNII(*shape, dropout=config.dropout, alpha=config.alpha, theta=config.theta)
        case "resgcn":
            return ResGCN(*shape, dropout=config.dropout, aggr=config.aggr)
    raise ConfigError(
        f"model.name is {config.name}, which takes sampled batches; on the whole graph take one of "
        f"{', '.join(WHOLE_GRAPH_MODELS)}"
    )


def _user_layered(path: str, config: ModelConfig, num_features: int, num_outputs: int, num_layers: int) -> LayeredModel:
    module = _user_module(path, config, num_features, num_outputs, num_layers)
    if not isinstance(module, LayeredModel):
        raise ConfigError(
            f"model.class {path} is no LayeredModel; derive it from graphsys.models.layered.LayeredModel, whose layers "
            f"can run one by one, or set trainer.strategy to minibatch"
        )
    check_layered(module, f"model.class {path}", (num_features, num_outputs, num_layers))
    return module


def _user_module(path: str, config: ModelConfig, num_features: int, num_outputs: int, num_layers: int) -> nn.Module:
    offered = {
        "in_channels": num_features,
        "hidden_channels": config.hidden,
        "out_channels": num_outputs,
        "num_layers": num_layers,
        "dropout": config.dropout,
    }
    module = _construct(path, import_class(path), offered, config.kwargs)
    _check_parameters(path, module)
    return module


def import_class(path: str) -> type[nn.Module]:
    """Return the class that ``package.module:Class`` names; modules of the current folder are found too.

    Raises:
        ConfigError: There is no such module or class, it does not import, or it is no ``torch.nn.Module``.
    """
    module_name, sign, class_name = path.partition(":")
    if not sign or not module_name or not class_name:
        raise ConfigError(f"model.class is '{path}'; write it as package.module:Class")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    importlib.invalidate_caches()
    with user_code(f"model.class {path}: the import of '{module_name}'"):
        try:
            module = importlib.import_module(module_name)
        except (ImportError, SyntaxError) as error:
            raise ConfigError(
                f"model.class {path}: module '{module_name}' does not import: {error}; "
                f"install it, or run from the folder that holds it ({here} was searched)"
            ) from error
    kind = getattr(module, class_name, None)
    if kind is None:
        raise ConfigError(f"model.class {path}: {module.__file__} has no '{class_name}'; check the name")
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(f"model.class {path}: '{class_name}' is no torch.nn.Module class; derive it from one")
    return kind


def model_code(config: ModelConfig) -> str | None:
    """Return a fingerprint of the file that defines the user's class; None for a built-in network.

    What the file imports is not part of it. A class without a source file has the fingerprint of its name.

    Raises:
        ConfigError: As :func:`import_class`.
    """
    if config.class_path is None:
        return None
    kind = import_class(config.class_path)
    path = Path(getattr(sys.modules[kind.__module__], "__file__", None) or "")
    return file_checksum(path) if path.is_file() else fingerprint(config.class_path)


def _construct(path: str, kind: type[nn.Module], offered: dict[str, Any], kwargs: dict[str, Any]) -> nn.Module:
    signature = inspect.signature(kind)
    arguments = {name: value for name, value in offered.items() if name in signature.parameters} | kwargs
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    with user_code(f"model.class {path}: __init__({given})"):
        try:
            signature.bind(**arguments)
            return kind(**arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"model.class {path} refuses ({given}): {error}; give what its __init__{signature} needs as "
                f"model.kwargs"
            ) from error


def _check_parameters(path: str, module: nn.Module) -> None:
    parameters = list(module.parameters())
    if not any(parameter.requires_grad for parameter in parameters):
        raise ConfigError(f"model.class {path} has no parameter to train; register its layers as attributes")
    if any(isinstance(parameter, UninitializedParameter) for parameter in parameters):
        raise ConfigError(
            f"model.class {path} has parameters without a size; take in_channels in its __init__ instead of lazy layers"
        )
