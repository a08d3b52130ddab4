from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphsys.core.errors import ConfigError
from graphsys.trainers.pipeline.stage_cut import ChunkCosts, StageCut, balanced_cut, equal_cut


def every_cut(num_layers: int, num_stages: int) -> list[StageCut]:
    inner = combinations(range(1, num_layers), num_stages - 1)
    return [StageCut(bounds=(0, *bounds, num_layers)) for bounds in inner]


def by_stage(cost: np.ndarray, cut: StageCut) -> list[float]:
    return [float(sum(cost[layer] for layer in cut.layers(stage))) for stage in range(cut.num_stages)]


@given(costs=st.lists(st.integers(0, 9), min_size=1, max_size=9), stages=st.integers(1, 9))
def test_no_cut_has_a_faster_slowest_stage_and_none_as_fast_is_more_even(costs: list[int], stages: int) -> None:
    stages = min(stages, len(costs))
    cost = np.array(costs, np.float64)
    found = by_stage(cost, balanced_cut(cost, stages))
    prices = [by_stage(cost, cut) for cut in every_cut(len(costs), stages)]
    assert max(found) == min(max(price) for price in prices)
    assert sum(part * part for part in found) == min(
        sum(part * part for part in price) for price in prices if max(price) == max(found)
    )


def test_like_layers_are_spread_evenly() -> None:
    assert balanced_cut(np.ones(9), 4).bounds in {(0, 3, 5, 7, 9), (0, 2, 5, 7, 9), (0, 2, 4, 7, 9), (0, 2, 4, 6, 9)}
    assert equal_cut(8, 4).bounds == (0, 2, 4, 6, 8)
    assert equal_cut(9, 4).bounds == (0, 2, 4, 6, 9)


def test_a_slow_encoder_leaves_fewer_layers_to_the_first_stage() -> None:
    parts = np.array([6.0, 1, 1, 1, 1, 1, 1, 1, 1, 0])[:, None]
    costs = ChunkCosts(forward=parts, backward=2 * parts)
    assert costs.of_layers.tolist() == [21, 3, 3, 3, 3, 3, 3, 3]
    cut = balanced_cut(costs.of_layers, 2)
    assert cut.bounds == (0, 1, 8)
    assert cut.of_stages(parts).tolist() == [[7], [7]]
    assert equal_cut(8, 2).of_stages(parts).tolist() == [[10], [4]]


def test_a_slow_decoder_leaves_fewer_layers_to_the_last_stage() -> None:
    parts = np.array([0.0, 1, 1, 1, 1, 3])[:, None]
    cut = balanced_cut(ChunkCosts(forward=parts, backward=parts).of_layers, 2)
    assert cut.bounds == (0, 3, 4)
    assert cut.of_stages(parts).tolist() == [[3], [4]]
    assert equal_cut(4, 1).of_stages(parts).tolist() == [[7]]


def test_ways_in_lockstep_take_what_the_slowest_takes_in_every_part() -> None:
    one = ChunkCosts(forward=np.array([[1.0, 5], [2, 2], [3, 1]]), backward=np.ones((3, 2)))
    other = ChunkCosts(forward=np.array([[4.0, 4], [1, 3], [3, 2]]), backward=np.zeros((3, 2)))
    both = ChunkCosts.lockstep([one, other])
    assert both.forward.tolist() == [[4, 5], [2, 3], [3, 2]]
    assert both.backward.tolist() == np.ones((3, 2)).tolist()
    assert (both.num_layers, both.num_chunks) == (1, 2)


@pytest.mark.parametrize("cut", [lambda: balanced_cut(np.ones(3), 4), lambda: equal_cut(3, 4)])
def test_more_stages_than_layers_are_refused(cut: object) -> None:
    assert callable(cut)
    with pytest.raises(ConfigError, match="stages is 4 and the network has 3 layers; give at most one stage per layer"):
        cut()


def test_no_stage_is_refused() -> None:
    with pytest.raises(ConfigError, match="stages is 0; give one stage or more"):
        equal_cut(3, 0)
