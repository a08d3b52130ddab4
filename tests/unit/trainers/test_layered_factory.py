import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.training import run_config

from graphsys.core.config import WHOLE_GRAPH_MODELS, ModelConfig
from graphsys.core.errors import ConfigError
from graphsys.trainers.model_factory import build_layered_model, build_model

MODULE = """
import torch
from torch import nn
from graphsys.models.layered import LayeredModel, MessageLayer

class Layer(MessageLayer):
    def __init__(self, width):
        super().__init__()
        self.message_channels, self.out_channels = 3, width
        self.lin = nn.Linear(width, 3)
        self.out = nn.Linear(3, width)
    def messages(self, prepared, rows):
        return self.lin(prepared)
    def update(self, total, prepared, rows):
        return prepared + self.out(total)

class Net(LayeredModel):
    kind = Layer
    def __init__(self, in_channels, hidden_channels, out_channels, num_layers):
        super().__init__()
        self.hidden_channels = hidden_channels
        self.encoder = nn.Linear(in_channels, hidden_channels)
        self.layers = nn.ModuleList(self.kind(hidden_channels) for _ in range(num_layers))
        self.decoder = nn.Linear(hidden_channels, out_channels)
    def encode(self, x):
        return self.encoder(x), None
    def decode(self, x):
        return self.decoder(x)

class TooDeep(Net):
    def __init__(self, in_channels, hidden_channels, out_channels):
        super().__init__(in_channels, hidden_channels, out_channels, 5)

class NoLayers(Net):
    def __init__(self, in_channels, hidden_channels, out_channels):
        super().__init__(in_channels, hidden_channels, out_channels, 0)

class OtherLayers(Net):
    kind = staticmethod(lambda width: nn.Linear(width, width))

class BatchNormed(Net):
    def __init__(self, in_channels, hidden_channels, out_channels, num_layers):
        super().__init__(in_channels, hidden_channels, out_channels, num_layers)
        self.norm = nn.BatchNorm1d(hidden_channels)

class Tied(Net):
    def __init__(self, in_channels, hidden_channels, out_channels, num_layers):
        super().__init__(in_channels, hidden_channels, out_channels, num_layers)
        self.layers[1].lin = self.layers[0].lin

class NoPair(Net):
    def encode(self, x):
        return self.encoder(x)

class NarrowCode(Net):
    def encode(self, x):
        return self.encoder(x)[:, 1:], None

class SilentlyShared(Net):
    def encode(self, x):
        return self.encoder(x), x

class Shared(Net):
    shared_channels = 2
    def encode(self, x):
        return self.encoder(x), x[:, :2]

class NeverShared(Net):
    shared_channels = 2

class Unsized(Net):
    def __init__(self, in_channels, hidden_channels, out_channels, num_layers):
        super().__init__(in_channels, hidden_channels, out_channels, num_layers)
        del self.hidden_channels

class WideMessage(Layer):
    def messages(self, prepared, rows):
        return prepared

class WideMessages(Net):
    kind = WideMessage

class Failing(Layer):
    def update(self, total, prepared, rows):
        raise KeyError("no way on")

class Fails(Net):
    kind = Failing

class Double(Layer):
    def update(self, total, prepared, rows):
        return super().update(total, prepared, rows).double()

class Doubles(Net):
    kind = Double

class Narrowing(Layer):
    def __init__(self, width):
        super().__init__(width)
        self.out_channels = 3
    def update(self, total, prepared, rows):
        return total

class Narrows(Net):
    kind = Narrowing

class WrongOutputs(Net):
    def decode(self, x):
        return x

class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 2)
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "deep_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("deep_nets", None)


def user(name: str, **model: object) -> ModelConfig:
    return ModelConfig.model_validate({"class": f"deep_nets:{name}", "hidden": 8, "num_layers": 2} | model)


@pytest.mark.parametrize("name", WHOLE_GRAPH_MODELS)
def test_initial_weights_depend_on_the_seed_alone(name: str) -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        config = ModelConfig.model_validate({"name": name, "num_layers": 3})
        return list(build_layered_model(config, 7, 3, seed=seed).state_dict().values())

    torch.manual_seed(1)
    first, drawn = weights(4), torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert all(torch.equal(one, other) for one, other in zip(first, weights(4), strict=True))
    assert not all(torch.equal(one, other) for one, other in zip(first, weights(5), strict=True))


def test_the_number_of_layers_is_that_of_the_config_and_has_no_default() -> None:
    assert build_layered_model(ModelConfig(name="gcnii", num_layers=32), 7, 3, seed=0).num_layers == 32
    with pytest.raises(ConfigError, match=r"model\.num_layers is missing"):
        build_layered_model(ModelConfig(name="gcnii"), 7, 3, seed=0)


@pytest.mark.parametrize("name", ["sage", "gcn", "gat", "gin"])
def test_a_network_for_batches_is_refused_on_the_whole_graph(name: str) -> None:
    config = ModelConfig.model_validate({"name": name, "num_layers": 2})
    with pytest.raises(ConfigError, match=f"model.name is {name}, which takes sampled batches; .* deep_gcn, deep_sage"):
        build_layered_model(config, 7, 3, seed=0)


@pytest.mark.parametrize("name", ["Net", "Shared"])
def test_a_users_network_of_layers_is_taken_as_it_is(name: str) -> None:
    model = build_layered_model(user(name), 7, 3, seed=0)
    assert type(model).__name__ == name
    assert (model.num_layers, model.hidden_channels, model.layer(0).message_channels) == (2, 8, 3)


def test_a_users_network_of_layers_is_refused_where_batches_are_sampled() -> None:
    run = run_config(Path("s.gs"), Path("out"), model={"class": "deep_nets:Net"})
    with pytest.raises(ConfigError, match=r"deep_nets:Net is a LayeredModel.*set trainer.strategy to pipeline"):
        build_model(run, 7, 3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TooDeep", "has 5 layers and model.num_layers is 2"),
        ("NoLayers", "layers is a ModuleList; set it to a torch.nn.ModuleList of one layer or more"),
        ("OtherLayers", "modules that are no MessageLayer"),
        ("BatchNormed", "norm is a BatchNorm1d, which mixes the rows .* take a LayerNorm"),
        ("Tied", r"layers\.1\.lin\.weight and layers\.0\.lin\.weight are one parameter"),
        ("NoPair", r"encode\(x\) returned float32 of shape \[3, 8\]; expected \(x, shared rows or None\)"),
        ("NarrowCode", r"encode\(x\) returned float32 of shape \[3, 7\] .* \[3, 8\], as hidden_channels says"),
        ("SilentlyShared", r"second part returned float32 of shape \[3, 7\] .* \[3, 0\], as shared_channels says"),
        ("NeverShared", r"second part returned nothing .* \[3, 2\], as shared_channels says"),
        ("Unsized", "hidden_channels is None; set it to the number of columns"),
        ("WideMessages", r"layers\[0\]\.messages\(.*\) returned .*\[3, 8\] .* \[3, 3\], as message_channels says"),
        ("Fails", r"layers\[0\]\.update\(.*\) failed with KeyError: 'no way on' .*deep_nets.py, line \d+"),
        ("Doubles", r"update\(.*\) returned float64 of shape \[3, 8\] .*; expected float32 of shape \[3, 8\]"),
        ("Narrows", r"layers\[0\]\.out_channels is 3, hidden_channels is 8"),
        ("WrongOutputs", r"decode\(x\) returned float32 of shape \[3, 8\] .* \[3, 3\], as the number of outputs"),
        ("Plain", "is no LayeredModel; derive it from graphsys.models.layered.LayeredModel"),
    ],
)
def test_a_class_that_breaks_a_promise_is_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"model.class deep_nets:{name}.*{message}"):
        build_layered_model(user(name), 7, 3, seed=0)
