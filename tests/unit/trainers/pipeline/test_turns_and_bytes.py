"""What processes send each other, to the byte, and the turns that chunks take."""

from pathlib import Path

import pytest
from helpers.pipelines import Toy, train_toy

from graphsys.trainers.pipeline.traffic import forecast_traffic

ITEM = 4  # bytes of a float32


@pytest.mark.parametrize(
    ("stages", "ways", "slots"), [(2, 1, 5), (4, 1, 4), (1, 2, 1), (1, 3, 1), (1, 2, 3), (2, 2, 3)]
)
def test_an_epoch_sends_what_the_formulas_say(tmp_path: Path, stages: int, ways: int, slots: int) -> None:
    toy = Toy(epochs=2, shared=True).on(stages=stages, ways=ways, slots=slots)
    trained = train_toy(toy, tmp_path)
    mirrors = trained[0].mirrors
    assert (mirrors > 0) == (ways > 1)
    forecast = forecast_traffic(
        num_nodes=toy.num_nodes,
        stages=stages,
        mirrors=mirrors,
        ways=ways,
        row_channels=2 * toy.hidden,
        message_channels=[toy.hidden] * toy.num_layers,
        weights=sum(weight.numel() for weight in toy.net().parameters()),
    )
    for epoch in range(toy.epochs):
        sent = {name: sum(part.traffic[epoch][name] for part in trained) for name in trained[0].traffic[epoch]}
        assert sent == {name: forecast.as_dict()[name] for name in sent}
        assert sent["boundary"] == 2 * (stages - 1) * toy.num_nodes * (toy.hidden + toy.hidden) * ITEM
        assert sent["exchange"] == 2 * mirrors * ITEM * toy.num_layers * toy.hidden


def test_every_chunk_has_one_turn_each_way_and_backward_is_in_reverse(tmp_path: Path) -> None:
    toy = Toy(epochs=3).on(stages=2, slots=4)
    trained = train_toy(toy, tmp_path)
    orders = set()
    for epoch in range(toy.epochs):
        by_stage = [[(turn.phase, turn.slot) for turn in part.turns[epoch]] for part in trained]
        assert by_stage[0] == by_stage[1]
        forward = [slot for phase, slot in by_stage[0] if phase == "forward"]
        assert sorted(forward) == [0, 1, 2, 3]
        assert [slot for phase, slot in by_stage[0] if phase == "backward"] == forward[::-1]
        orders.add(tuple(forward))
        assert all(turn.compute_s > 0 and turn.wait_s >= 0 for part in trained for turn in part.turns[epoch])
    assert len(orders) > 1
