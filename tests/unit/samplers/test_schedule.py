from dataclasses import replace

import numpy as np
import pytest

from graphsys.core.errors import ConfigError
from graphsys.core.types import BatchKey
from graphsys.samplers.schedule import Schedule

NODES = np.arange(100, 121)


def schedule(samples: str = "fresh", *, shuffle: bool = True, epochs: int = 3, seed: int = 4) -> Schedule:
    return Schedule(
        nodes=NODES,
        batch_size=4,
        seed=seed,
        epochs=epochs,
        samples="frozen" if samples == "frozen" else "fresh",
        shuffle=shuffle,
    )


def epoch_nodes(plan: Schedule, epoch: int) -> list[int]:
    positions = range(epoch * plan.batches_per_epoch, (epoch + 1) * plan.batches_per_epoch)
    return [int(node) for position in positions for node in plan.seeds(position).node]


def test_every_epoch_takes_each_node_once_and_in_an_order_of_its_own() -> None:
    plan = schedule()
    orders = [epoch_nodes(plan, epoch) for epoch in range(3)]
    assert all(sorted(order) == NODES.tolist() for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert orders[0] != epoch_nodes(schedule(seed=5), 0)


def test_the_last_batch_of_an_epoch_is_smaller() -> None:
    plan = schedule()
    assert plan.batches_per_epoch == 6
    assert [len(plan.seeds(position).node) for position in range(7)] == [4, 4, 4, 4, 4, 1, 4]


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    plan = schedule()
    backwards = {position: plan.seeds(position).node.tolist() for position in reversed(range(plan.num_batches))}
    assert all(schedule().seeds(position).node.tolist() == node for position, node in backwards.items())


def test_positions_run_through_the_epochs() -> None:
    batch = schedule().seeds(8)
    assert (batch.epoch, batch.batch_id) == (1, 2)
    assert schedule().key(8) == BatchKey(seed=4, epoch=1, batch_id=2)


def test_fresh_samples_have_batches_for_all_epochs_and_frozen_ones_for_the_first() -> None:
    assert schedule("fresh").num_batches == 18
    assert schedule("frozen").num_batches == 6
    assert epoch_nodes(schedule("frozen"), 0) == epoch_nodes(schedule("fresh"), 0)


def test_without_shuffling_nodes_keep_their_order() -> None:
    plan = schedule(shuffle=False)
    assert epoch_nodes(plan, 0) == epoch_nodes(plan, 2) == NODES.tolist()


def test_windows_cover_all_positions_and_may_span_epochs() -> None:
    plan = schedule()
    windows = [plan.window(index, 5) for index in range(plan.num_windows(5))]
    assert [position for window in windows for position in window] == list(range(18))
    assert [len(window) for window in windows] == [5, 5, 5, 3]


def test_an_empty_split_has_no_batches() -> None:
    empty = Schedule(nodes=np.empty(0, np.int64), batch_size=4, seed=0, epochs=2, samples="fresh")
    assert (empty.num_batches, empty.num_windows(8)) == (0, 0)


@pytest.mark.parametrize("position", [-1, 18])
def test_a_position_outside_the_schedule_is_refused(position: int) -> None:
    with pytest.raises(ConfigError, match=f"batch position {position} is outside the schedule of 18 batches"):
        schedule().seeds(position)


@pytest.mark.parametrize("samples", ["fresh", "frozen"])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_the_shares_of_several_workers_are_together_the_batches_of_one(samples: str, world_size: int) -> None:
    whole = schedule(samples)
    shares = [replace(whole, rank=rank, world_size=world_size) for rank in range(world_size)]
    found = {
        (batch.epoch, batch.batch_id): batch.node.tolist()
        for share in shares
        for batch in map(share.seeds, range(share.num_batches))
    }
    expected = [whole.seeds(position) for position in range(whole.num_batches)]
    assert found == {(batch.epoch, batch.batch_id): batch.node.tolist() for batch in expected}
    assert sum(share.num_batches for share in shares) == whole.num_batches
    assert {share.steps_per_epoch for share in shares} == {max(share.batches_per_epoch for share in shares)}


def test_a_share_counts_its_own_batches_before_any_of_all() -> None:
    share = replace(schedule(), rank=1, world_size=4)  # of 0 to 5 it takes 1 and 5
    assert [share.index(batch_id) for batch_id in range(7)] == [0, 0, 1, 1, 1, 1, 2]
    assert [share.num_seeds(first, first + 4) for first in (0, 4)] == [16, 5]
