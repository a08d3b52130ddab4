import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from graphsys.trainers.pipeline.slots import forecast_slots, ideal_bubble
from graphsys.trainers.pipeline.stage_cut import ChunkCosts, StageCut, equal_cut


@st.composite
def pipelines(draw: st.DrawFn) -> tuple[ChunkCosts, StageCut, list[int]]:
    layers, chunks = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    cost = arrays(np.float64, (layers + 2, chunks), elements=st.integers(1, 9).map(float))
    costs = ChunkCosts(forward=draw(cost), backward=draw(cost))
    return costs, equal_cut(layers, draw(st.integers(1, layers))), draw(st.permutations(range(chunks)))


def events(costs: ChunkCosts, cut: StageCut, order: list[int], *, barrier: bool) -> float:
    """Return the seconds of an epoch, by running every stage's list of work against a clock.

    With ``barrier``, work that starts in a slot ends with the slowest of that slot; without, stages wait for their
    input alone.
    """
    stages = cut.num_stages
    forward, backward = cut.of_stages(costs.forward), cut.of_stages(costs.backward)
    work = [[("f", c) for c in order] + [("b", c) for c in reversed(order)] for _ in range(stages)]
    done: dict[tuple[str, int, int], float] = {}
    clock, free = 0.0, [0.0] * stages
    while any(work):
        ready = [stage for stage in range(stages) if work[stage] and _input(done, work[stage][0], stage, stages)]
        ends = []
        for stage in ready:
            kind, chunk = work[stage].pop(0)
            came = _input(done, (kind, chunk), stage, stages)
            assert came is not None
            begin = clock if barrier else max(came[0], free[stage])
            free[stage] = begin + float((forward if kind == "f" else backward)[stage, chunk])
            ends.append(((kind, chunk, stage), free[stage]))
        clock = max(end for _, end in ends)
        done.update(ends)
    return max(free)


def _input(
    done: dict[tuple[str, int, int], float], item: tuple[str, int], stage: int, stages: int
) -> tuple[float] | None:
    """Return when the input of a stage's work came, None where it has not come."""
    kind, chunk = item
    if kind == "f":
        source = None if stage == 0 else ("f", chunk, stage - 1)
    else:
        source = None if stage == stages - 1 else ("b", chunk, stage + 1)
    if source is None:
        return (0.0,)
    return (done[source],) if source in done else None


@given(pipelines())
def test_the_slots_are_those_of_a_run_event_by_event(pipeline: tuple[ChunkCosts, StageCut, list[int]]) -> None:
    costs, cut, order = pipeline
    found = forecast_slots(costs, cut, order)
    assert found.epoch_s == pytest.approx(events(costs, cut, order, barrier=True))
    assert found.epoch_s >= events(costs, cut, order, barrier=False) - 1e-9
    assert found.num_slots == 2 * (costs.num_chunks + cut.num_stages - 1)


@given(layers=st.integers(1, 6), chunks=st.integers(1, 12), data=st.data())
def test_like_costs_take_as_long_without_barriers_and_leave_the_ideal_bubble(
    layers: int, chunks: int, data: st.DataObject
) -> None:
    stages = data.draw(st.sampled_from([count for count in range(1, layers + 1) if layers % count == 0]))
    parts = np.ones((layers + 2, chunks))
    parts[[0, -1]] = 0
    costs, cut = ChunkCosts(forward=parts, backward=3 * parts), equal_cut(layers, stages)
    found = forecast_slots(costs, cut)
    assert found.epoch_s == pytest.approx(events(costs, cut, list(range(chunks)), barrier=False))
    assert found.bubble == pytest.approx(found.bubble_slots)
    assert found.bubble_slots == ideal_bubble(stages, chunks)


def test_the_papers_eight_stages_of_thirty_two_chunks_wait_for_seven_slots_of_thirty_nine() -> None:
    assert ideal_bubble(8, 32) == pytest.approx(7 / 39)


def test_two_stages_by_hand() -> None:
    forward = np.array([[0.0, 0], [1, 5], [2, 4], [0, 0]])
    found = forecast_slots(ChunkCosts(forward=forward, backward=2 * forward), equal_cut(2, 2), [1, 0])
    # Forward: 5 | max(1, 4) | 2; backward, chunk 0 first: 4 | max(2, 8) | 10.
    assert (found.forward_s, found.backward_s, found.epoch_s) == (11, 22, 33)
    assert found.bubble == pytest.approx(1 - 36 / 66)
    assert found.as_dict()["num_slots"] == 6


def test_a_balanced_cut_of_an_uneven_network_takes_fewer_seconds_than_an_equal_one() -> None:
    parts = np.repeat([[6.0], *([1.0],) * 8, [0.0]], 16, axis=1)
    costs = ChunkCosts(forward=parts, backward=parts)
    balanced, equal = StageCut(bounds=(0, 1, 8)), equal_cut(8, 2)
    assert forecast_slots(costs, balanced).epoch_s < 0.75 * forecast_slots(costs, equal).epoch_s
