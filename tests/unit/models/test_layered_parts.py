from itertools import pairwise

import pytest
import torch

from graphsys.core.config import WHOLE_GRAPH_MODELS, ModelConfig
from graphsys.models.layered_parts import stage_parameters
from graphsys.trainers.model_factory import build_layered_model


@pytest.mark.parametrize("name", WHOLE_GRAPH_MODELS)
@pytest.mark.parametrize("bounds", [(0, 4), (0, 1, 4), (0, 1, 2, 3, 4)])
def test_stages_share_out_every_parameter_once(name: str, bounds: tuple[int, ...]) -> None:
    config = ModelConfig.model_validate({"name": name, "hidden": 8, "num_layers": 4, "dropout": 0.9})
    model = build_layered_model(config, 7, 3, seed=0)
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    parts = [stage_parameters(model, 7, *pair) for pair in pairwise(bounds)]
    assert torch.equal(torch.rand(2), expected)
    names = [name for part in parts for name in part]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert all(part[name] is model.get_parameter(name) for part in parts for name in part)
    assert {name for name in parts[0] if name.startswith("encoder.")} == {"encoder.1.weight", "encoder.1.bias"}
    assert any(name.startswith("decoder.") for name in parts[-1])
    assert all(name.startswith("layers.") for part in parts[1:-1] for name in part)
