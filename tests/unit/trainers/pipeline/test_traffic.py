"""Bytes counted at the send calls are those of the formulas, to the byte."""

from pathlib import Path

import pytest
from helpers.pipelines import Toy, train_toy

ITEM = 4  # bytes of a float32


@pytest.mark.parametrize(
    ("stages", "ways", "slots"), [(2, 1, 5), (4, 1, 4), (1, 2, 1), (1, 3, 1), (1, 2, 3), (2, 2, 3)]
)
def test_an_epoch_sends_what_the_formulas_say(tmp_path: Path, stages: int, ways: int, slots: int) -> None:
    toy = Toy(epochs=2, shared=True).on(stages=stages, ways=ways, slots=slots)
    trained = train_toy(toy, tmp_path)
    mirrors = trained[0].mirrors
    assert (mirrors > 0) == (ways > 1)
    for epoch in range(toy.epochs):
        sent = {name: sum(part.traffic[epoch][name] for part in trained) for name in trained[0].traffic[epoch]}
        assert sent["boundary"] == 2 * (stages - 1) * toy.num_nodes * (toy.hidden + toy.hidden) * ITEM
        assert sent["exchange"] == 2 * mirrors * ITEM * toy.num_layers * toy.hidden
        weights = sum(weight.numel() for part in trained for weight in part.weights.values())
        assert sent["reduce"] == (ITEM * weights if ways > 1 else 0)


def test_every_chunk_has_one_turn_each_way_and_backward_is_in_reverse(tmp_path: Path) -> None:
    toy = Toy(epochs=3).on(stages=2, slots=4)
    trained = train_toy(toy, tmp_path)
    orders = set()
    for epoch in range(toy.epochs):
        by_stage = [[(phase, slot) for phase, slot, _, _ in part.turns[epoch]] for part in trained]
        assert by_stage[0] == by_stage[1]
        forward = [slot for phase, slot in by_stage[0] if phase == "forward"]
        assert sorted(forward) == [0, 1, 2, 3]
        assert [slot for phase, slot in by_stage[0] if phase == "backward"] == forward[::-1]
        orders.add(tuple(forward))
        assert all(compute > 0 and wait >= 0 for part in trained for _, _, compute, wait in part.turns[epoch])
    assert len(orders) > 1
