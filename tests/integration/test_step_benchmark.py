import numpy as np
import pytest
import torch
from step import StepSpec, measure, power_law_topology


@pytest.mark.parametrize("model", ["sage", "gcn", "gat"])
def test_the_step_benchmark_times_every_contender_on_the_same_batches(model: str) -> None:
    threads = torch.get_num_threads()
    topology = power_law_topology(500, 3000)
    spec = StepSpec(
        model=model,
        fanouts=(3, 2),
        batch_size=16,
        num_features=8,
        hidden=8,
        threads=1,
        batches=2,
        rounds=1,
        peers=("pyg",),
    )
    try:
        found = measure(topology, np.arange(500), spec)
    finally:
        torch.set_num_threads(threads)
    assert found["name"] == f"step-{model}"
    assert found["missing"] == []
    assert found["ratio"] == pytest.approx(found["peers"]["pyg"] / found["value"], rel=0.2)
    assert 16 < found["nodes"] < 500
