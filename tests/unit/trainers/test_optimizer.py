import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from graphsys.core.config import ModelConfig, TrainerConfig
from graphsys.trainers.model_factory import build_layered_model
from graphsys.trainers.optimizer import new_optimizer, parameter_groups

GCNII = ModelConfig(name="gcnii", hidden=8, num_layers=3)


LAYERS = [f"layers.{index}.lin.weight" for index in range(3)]


def by_decay(named: list[tuple[str, nn.Parameter]], config: TrainerConfig) -> list[tuple[float, list[str]]]:
    names = {id(parameter): name for name, parameter in named}
    groups = parameter_groups(named, config)
    return [(group["weight_decay"], [names[id(parameter)] for parameter in group["params"]]) for group in groups]


def test_layers_decay_by_their_own_factor_where_one_is_given_and_the_order_stays() -> None:
    named = list(build_layered_model(GCNII, 7, 3, seed=0).named_parameters())
    assert by_decay(named, TrainerConfig(weight_decay=5e-4, layer_weight_decay=0.01)) == [
        (5e-4, ["encoder.1.weight", "encoder.1.bias"]),
        (0.01, LAYERS),
        (5e-4, ["decoder.1.weight", "decoder.1.bias"]),
    ]


def test_all_parameters_decay_alike_otherwise() -> None:
    named = list(build_layered_model(GCNII, 7, 3, seed=0).named_parameters())
    assert by_decay(named, TrainerConfig(weight_decay=5e-4)) == [(5e-4, [name for name, _ in named])]


def test_a_stage_without_encoder_and_decoder_has_one_group() -> None:
    named = list(build_layered_model(GCNII, 7, 3, seed=0).named_parameters())
    layer = [(name, parameter) for name, parameter in named if name in LAYERS]
    assert by_decay(layer, TrainerConfig(layer_weight_decay=0.01)) == [(0.01, LAYERS)]


def test_an_optimizer_has_the_kind_and_the_learning_rate_of_the_run() -> None:
    named = list(build_layered_model(GCNII, 7, 3, seed=0).named_parameters())
    optimizer = new_optimizer(named, TrainerConfig(optimizer="adamw", lr=0.25, layer_weight_decay=0.01))
    assert type(optimizer).__name__ == "AdamW"
    assert [group["lr"] for group in optimizer.param_groups] == [0.25] * 3


@pytest.mark.parametrize(("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_steps_are_those_of_torch_bit_by_bit(name: str, kind: type[torch.optim.Optimizer]) -> None:
    def trained(ours: bool) -> torch.Tensor:
        torch.manual_seed(0)
        layer = nn.Linear(3, 2)
        config = TrainerConfig.model_validate({"optimizer": name, "lr": 0.1, "weight_decay": 0.01})
        theirs: Any = {"lr": 0.1, "weight_decay": 0.01}
        optimizer = new_optimizer(layer.named_parameters(), config) if ours else kind(layer.parameters(), **theirs)
        for _ in range(3):
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward([layer(torch.ones(4, 3)).square().sum()])
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        return layer.weight.detach()

    assert torch.equal(trained(ours=True), trained(ours=False))


def test_a_training_loads_no_compiler() -> None:
    program = """
import sys, torch
from graphsys.core.config import TrainerConfig
from graphsys.trainers.device import exact_torch
from graphsys.trainers.optimizer import new_optimizer
layer = torch.nn.Linear(3, 2)
with exact_torch(torch.device("cpu"), 1):
    assert torch.are_deterministic_algorithms_enabled()
    optimizer = new_optimizer(layer.named_parameters(), TrainerConfig())
    optimizer.zero_grad()
    layer(torch.ones(4, 3)).sum().backward()
    optimizer.step()
raise SystemExit("torch._dynamo" in sys.modules or "torch._inductor" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
