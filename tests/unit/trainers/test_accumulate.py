import numpy as np
import numpy.typing as npt
import pytest

from graphsys.core.types import Features
from graphsys.trainers import accumulate
from graphsys.trainers.accumulate import Accumulator
from graphsys.trainers.edge_ranges import Sources, Targets

NUM_SRC, NUM_DST, NUM_EDGES, HEADS, CHANNELS = 40, 30, 500, 2, 3


def drawn(*shape: int, seed: int = 0) -> Features:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def edges(num_edges: int = NUM_EDGES) -> tuple[Sources, Targets]:
    rng = np.random.default_rng(1)
    target = np.sort((NUM_DST * rng.random(num_edges) ** 2).astype(np.int32))
    return rng.integers(0, NUM_SRC, num_edges).astype(np.uint16), target


def attention_state() -> Features:
    """States of destinations that attended to one value already."""
    width = HEADS * CHANNELS
    state = drawn(NUM_DST, width + 3 * HEADS, seed=2)
    state[:, width : width + HEADS] = 1
    return state


def attended(state: Features, message: Features, source: Sources, target: Targets) -> npt.NDArray[np.float64]:
    """[n, H * C] means in 64 bits, all exponents at once."""
    width = HEADS * CHANNELS
    old, found = state.astype(np.float64), np.empty((NUM_DST, width))
    for node in range(NUM_DST):
        sent = message[source[target == node]].astype(np.float64)
        for head in range(HEADS):
            columns = slice(head * CHANNELS, (head + 1) * CHANNELS)
            exponent = sent[:, width + head] + old[node, width + 2 * HEADS + head]
            weight = np.exp(np.where(exponent < 0, 0.2 * exponent, exponent))
            kept = np.exp(old[node, width + HEADS + head])
            total = old[node, columns] * kept + weight @ sent[:, columns]
            found[node, columns] = total / (old[node, width + head] * kept + weight.sum())
    return found


def test_messages_are_added_to_the_sums_of_their_targets() -> None:
    message, total = drawn(NUM_SRC, 5), drawn(NUM_DST, 5, seed=3)
    source, target = edges()
    expected = total.astype(np.float64)
    np.add.at(expected, target, message[source].astype(np.float64))
    with Accumulator(1) as accumulator:
        accumulator.add(message, source, target, total)
    np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)


def test_attention_weighs_by_exponents_however_they_are_split_into_blocks() -> None:
    message, state = drawn(NUM_SRC, HEADS * CHANNELS + HEADS) * 3, attention_state()
    source, target = edges()
    expected = attended(state, message, source, target)
    with Accumulator(1) as accumulator:
        for part in (slice(0, NUM_EDGES, 2), slice(1, NUM_EDGES, 2)):
            accumulator.attend(message, source[part], target[part], state, heads=HEADS, slope=0.2)
    width = HEADS * CHANNELS
    weight = np.repeat(state[:, width : width + HEADS], CHANNELS, axis=1)
    np.testing.assert_allclose(state[:, :width] / weight, expected, rtol=1e-4, atol=1e-5)


def test_attention_stands_exponents_beyond_what_a_float_can_exponentiate() -> None:
    message, state = np.zeros((3, HEADS * CHANNELS + HEADS), np.float32), attention_state()
    message[:, : HEADS * CHANNELS] = np.arange(3)[:, None]
    message[:, HEADS * CHANNELS :] = [[200], [900], [-900]]
    with Accumulator(1) as accumulator:
        for node in (0, 1, 2):
            edge = np.array([node], np.uint16), np.zeros(1, np.int32)
            accumulator.attend(message, *edge, state, heads=HEADS, slope=0.2)
    assert np.isfinite(state).all()
    width = HEADS * CHANNELS
    np.testing.assert_allclose(state[0, :width] / state[0, width], 1, rtol=1e-6)  # the largest exponent has it all


@pytest.mark.parametrize("threads", [2, 7])
def test_threads_change_no_bit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accumulate, "_LEAST_EDGES", 1)
    message, sent = drawn(NUM_SRC, 5), drawn(NUM_SRC, HEADS * CHANNELS + HEADS)
    found = []
    for count in (1, threads):
        total, state = drawn(NUM_DST, 5, seed=3), attention_state()
        with Accumulator(count) as accumulator:
            accumulator.add(message, *edges(), total)
            accumulator.attend(sent, *edges(), state, heads=HEADS, slope=0.2)
        found.append((total.tobytes(), state.tobytes()))
    assert found[0] == found[1]


def test_no_edges_change_nothing() -> None:
    total = drawn(NUM_DST, 5)
    before = total.copy()
    with Accumulator(3) as accumulator:
        accumulator.add(drawn(NUM_SRC, 5), *edges(0), total)
    np.testing.assert_array_equal(total, before)


def test_a_hub_keeps_its_digits() -> None:
    num_edges, block = 1 << 22, 1 << 12
    message, total = np.full((1, 1), 0.1, np.float32), np.zeros((1, 1), np.float32)
    source, target = np.zeros(block, np.uint16), np.zeros(block, np.int32)
    with Accumulator(1) as accumulator:
        for _ in range(num_edges // block):
            accumulator.add(message, source, target, total)
    assert total[0, 0] == pytest.approx(num_edges * float(np.float32(0.1)), rel=1e-4)  # one long sum is 4 % off
