"""With one chunk per way nothing is stale: the pipeline is full-graph training, whatever the processes."""

from pathlib import Path

import pytest
import torch
from helpers.pipelines import Toy, all_outputs, all_weights, assert_near, plain_forward, train_plainly, train_toy


@pytest.mark.parametrize(
    ("stages", "ways", "shared"),
    [(1, 1, False), (1, 1, True), (2, 1, True), (4, 1, True), (1, 2, False), (1, 3, True), (2, 2, True)],
)
def test_one_chunk_per_way_trains_as_one_process_does_by_plain_autograd(
    tmp_path: Path, stages: int, ways: int, shared: bool
) -> None:
    toy = Toy(epochs=20, shared=shared).on(stages=stages, ways=ways)
    losses, weights = train_plainly(toy)
    trained = train_toy(toy, tmp_path)
    assert_near(torch.tensor(trained[0].losses), torch.tensor(losses))
    found = all_weights(trained)
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        assert_near(found[name], weight)


def test_dropout_draws_the_same_for_any_number_of_stages(tmp_path: Path) -> None:
    toy = Toy(epochs=5, shared=True, dropout=0.5)
    alone = train_toy(toy.on(slots=4), tmp_path)
    for stages in (2, 4):
        spread = train_toy(toy.on(stages=stages, slots=4), tmp_path / str(stages))
        assert spread[0].losses == alone[0].losses
        found = all_weights(spread)
        assert all(torch.equal(found[name], weight) for name, weight in alone[0].weights.items())


@pytest.mark.parametrize(("stages", "ways", "slots"), [(1, 1, 4), (2, 1, 4), (1, 2, 2), (2, 2, 3)])
def test_exact_outputs_are_those_of_the_whole_graph_at_once(tmp_path: Path, stages: int, ways: int, slots: int) -> None:
    toy = Toy(epochs=2, shared=True, dropout=0.3).on(stages=stages, ways=ways, slots=slots)
    trained = train_toy(toy, tmp_path)
    net = toy.net()
    net.load_state_dict(all_weights(trained))
    net.eval()
    with torch.no_grad():
        expected = plain_forward(net, toy.topology, torch.from_numpy(toy.data.x))
    assert_near(all_outputs(trained), expected)
