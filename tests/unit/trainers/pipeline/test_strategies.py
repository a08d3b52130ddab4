import json

import numpy as np
import pytest

from graphsys.core.config import ModelConfig
from graphsys.core.errors import ConfigError
from graphsys.trainers.model_factory import build_layered_model
from graphsys.trainers.pipeline.network import CostRates, GraphSplit, NetworkShape
from graphsys.trainers.pipeline.stage_cut import ChunkCosts
from graphsys.trainers.pipeline.stage_memory import stage_memory
from graphsys.trainers.pipeline.strategies import Advice, Limits, advise, forecast, ways_of

NETWORK = NetworkShape(
    num_features=10,
    hidden_channels=4,
    shared_channels=4,
    message_channels=(4, 4, 4, 4),
    layer_weights=(60, 16, 16, 31),
    kept_bytes=(7, 20, 20, 20, 20, 9),
)
NODES = 64


def rates(per_node: float = 1e-3, per_edge: float = 0.0) -> CostRates:
    parts = np.zeros((6, 3))
    parts[1:-1] = [0.0, per_node, per_edge]
    return CostRates(forward=parts, backward=2 * parts)


def split(ways: int, slots: int, mirrors: int) -> GraphSplit:
    chunk = np.full((ways, slots), NODES // (ways * slots))
    return GraphSplit(nodes=chunk, edges=3 * chunk, mirrors=(mirrors,) * ways)


SPLITS = {1: split(1, 16, 0), 2: split(2, 8, 5), 4: split(4, 1, 20)}


def advice(limits: Limits, per_edge: float = 0.0) -> Advice:
    return advise(NETWORK, SPLITS, rates(per_edge=per_edge), 4, limits)


def test_way_counts_divide_the_processes() -> None:
    assert ways_of(12) == [1, 2, 3, 4, 6, 12]


def test_every_way_count_is_foretold_with_its_bytes_and_bubble() -> None:
    found = {one.ways: one for one in advice(Limits()).forecasts}
    assert [found[ways].name for ways in (1, 2, 4)] == ["pipeline", "hybrid", "graph parallel"]
    assert [found[ways].traffic.total for ways in (1, 2, 4)] == [
        2 * 3 * NODES * 8 * 4,
        2 * 1 * NODES * 8 * 4 + 2 * 10 * 16 * 4,
        2 * 80 * 16 * 4,
    ]
    assert [found[ways].traffic.reduce for ways in (1, 2, 4)] == [0, 2 * 123 * 4, 6 * 123 * 4]
    assert [found[ways].slots.bubble for ways in (1, 2, 4)] == pytest.approx([3 / 19, 1 / 9, 0])
    assert [found[ways].is_exact for ways in (1, 2, 4)] == [False, False, True]
    assert [found[ways].cut.bounds for ways in (1, 2, 4)] == [(0, 1, 2, 3, 4), (0, 2, 4), (0, 4)]
    # 4 layers x 3 passes x 64 nodes x 1 ms over 4 processes, and the bubble.
    assert found[1].epoch_s == pytest.approx(0.192 * 19 / 16)
    assert found[4].epoch_s == pytest.approx(0.192)


def test_without_limits_the_fewest_seconds_are_advised() -> None:
    found = advice(Limits())
    assert (found.best.stages, found.best.ways) == (1, 4)
    assert found.reason == "fastest, 0.192 s per epoch against 0.216 s of 2 x 2"


def test_slow_links_turn_the_advice_to_what_sends_least() -> None:
    found = advice(Limits(send_bytes_s=1e3))
    sent = {one.ways: one.traffic.total + one.traffic.reduce for one in found.forecasts}
    assert found.best.ways == min(sent, key=lambda ways: sent[ways])
    slowest = max(found.forecasts, key=lambda one: one.epoch_s)
    assert slowest.epoch_s == pytest.approx(slowest.slots.epoch_s + sent[slowest.ways] / 4 / 1e3)


def test_a_limit_on_memory_rules_out_what_does_not_fit() -> None:
    needs = {one.ways: one.most_memory for one in advice(Limits()).forecasts}
    assert needs[1] < needs[4]
    found = advice(Limits(memory=needs[4] - 1))
    assert found.best.ways != 4
    assert "that fit" in found.reason
    none = advice(Limits(memory=100))
    assert none.best.most_memory == min(needs.values())
    assert none.reason.startswith("none fits 100 B per process; it needs least")


def test_more_stages_than_layers_are_left_out_by_name() -> None:
    found = advise(NETWORK, {**SPLITS, 8: split(8, 1, 30)}, rates(), 8, Limits())
    assert dict(found.left_out) == {1: "8 stages are more than the 4 layers"}
    with pytest.raises(
        ConfigError, match=r"num_workers is 5, and no strategy fits: 5 stages.*; the graph cannot be split"
    ):
        advise(NETWORK, {}, rates(), 5, Limits())


def test_a_forecast_is_plain_json() -> None:
    advised = advice(Limits(memory=1 << 30))
    assert advised.best.ways == 4
    found = [json.loads(json.dumps(one.as_dict())) for one in advised.forecasts]
    assert found[0]["cut"] == [0, 1, 2, 3, 4]
    assert found[1]["memory"][0]["total"] > 0


def test_slow_ways_set_the_pace_of_their_stage() -> None:
    uneven = GraphSplit(nodes=np.array([[10, 10], [30, 10]]), edges=np.zeros((2, 2), np.int64), mirrors=(1, 1))
    found = forecast(NETWORK, uneven, rates(), 1, Limits())
    assert found.epoch_s == pytest.approx(4 * 3 * (30 + 10) * 1e-3)


def test_memory_of_a_stage_is_the_sum_of_what_the_largest_way_holds() -> None:
    uneven = GraphSplit(nodes=np.array([[10, 20], [10, 10]]), edges=np.array([[5, 6], [7, 8]]), mirrors=(3, 2))
    found = stage_memory(NETWORK, uneven, range(1, 3))
    assert found.histories == 3 * (30 + 3) * (4 + 4) * 4  # live, snapshot and gradient of two layers
    assert found.inputs == 30 * 8 * 4
    assert found.topology == 2 * 11 * 4 + (3 * 30 + 3 + 2) * 4 + 3 * 8
    assert found.weights == 4 * 32 * 4
    assert found.total == found.histories + found.inputs + found.topology + found.weights + found.transients
    first = stage_memory(NETWORK, uneven, range(2))
    # In place of the rows that come from the stage before: the features of its largest chunk, and the encoder.
    assert first.transients - found.transients == 1.5 * 20 * ((10 - 8) * 4 + 7)


def test_what_autograd_keeps_is_counted_by_running_the_network() -> None:
    config = ModelConfig(name="gcnii", hidden=8, num_layers=3, dropout=0.0)
    kept = NetworkShape.of(build_layered_model(config, 7, 5, seed=0), 7).kept_bytes
    # The encoder's output; of every layer the degrees' scale, what its matrix multiplies and what relu puts out.
    assert kept == (8 * 4, *[12 + 2 * 8 * 4] * 3, 0)


def test_a_way_of_one_chunk_keeps_no_snapshot() -> None:
    assert stage_memory(NETWORK, split(4, 1, 20), range(4)).histories == 2 * (16 + 20) * 16 * 4


def test_the_shape_of_a_network_counts_every_weight_once() -> None:
    config = ModelConfig(name="gcnii", hidden=8, num_layers=3)
    model = build_layered_model(config, 7, 5, seed=0)
    shape = NetworkShape.of(model, 7)
    assert shape.layer_weights == (64 + 7 * 8 + 8, 64, 64 + 8 * 5 + 5)
    assert sum(shape.layer_weights) == sum(weight.numel() for weight in model.parameters())
    assert (shape.row_channels, shape.message_channels, shape.num_layers) == (16, (8, 8, 8), 3)


def test_rates_fitted_to_linear_costs_foretell_other_chunks() -> None:
    rng = np.random.default_rng(0)
    nodes, edges = rng.integers(50, 200, 12), rng.integers(100, 900, 12)
    true = CostRates(forward=rng.random((5, 3)) * [1e-3, 1e-5, 1e-6], backward=np.full((5, 3), 1e-6))
    fitted = CostRates.fit(true.costs(nodes, edges), nodes, edges)
    wanted, found = true.costs([1000], [7000]), fitted.costs([1000], [7000])
    assert np.allclose(found.forward, wanted.forward, rtol=1e-6)
    assert np.allclose(found.backward, wanted.backward, rtol=1e-6)


def test_fitted_rates_are_never_negative() -> None:
    falling = np.array([[4.0, 3, 2, 1]] * 3)
    fitted = CostRates.fit(ChunkCosts(forward=falling, backward=falling), [1, 2, 3, 4], [0, 0, 0, 0])
    assert (fitted.forward >= 0).all()
    assert fitted.costs([2], [0]).forward[0, 0] == pytest.approx(2.5)
