"""Ways of a stage run the chunks of a slot together: they train as one way does whose chunks are these together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pipelines import Toy, all_weights, assert_near, train_toy

from graphsys.trainers.pipeline.chunks import ChunkTable


@pytest.mark.parametrize(("stages", "ways"), [(1, 2), (2, 2), (1, 3)])
def test_ways_train_as_one_way_whose_chunks_are_theirs_of_a_slot_together(
    tmp_path: Path, stages: int, ways: int
) -> None:
    toy = Toy(epochs=6, shared=True, trainer={"refresh": 2}).on(stages=stages, ways=ways, slots=3)
    spread = train_toy(toy, tmp_path)
    table = toy.table()
    slot = np.empty(toy.num_nodes, np.int64)
    slot[table.node] = np.tile([0, 1, 2], ways).repeat(table.counts.reshape(-1))
    alone = toy.on(slots=3).runtime(table=ChunkTable.of(slot, ways=1, slots=3))
    alone.run_exactly(into_snapshot=True)
    losses = [alone.run_epoch(epoch).loss for epoch in range(toy.epochs)]
    assert_near(torch.tensor(spread[0].losses), torch.tensor(losses))
    found = all_weights(spread)
    for name, weight in alone.stage.model.named_parameters():
        assert_near(found[name], weight.detach())


def test_all_ways_of_a_stage_end_with_the_same_bits(tmp_path: Path) -> None:
    trained = train_toy(Toy(epochs=4, dropout=0.4).on(stages=2, ways=2, slots=2), tmp_path)
    for stage in (0, 1):
        one, other = trained[2 * stage].weights, trained[2 * stage + 1].weights
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
