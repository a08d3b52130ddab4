import numpy as np
import pytest

from graphsys.storage.residency import plan_residency
from graphsys.trainers.trace_model import fetched_rows, fit_frequencies, probabilities

NODES = 30_000
AHEAD = 5  # batches behind a window that its plan knows of


def drawn(num_batches: int, seed: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return batches that hold node i with a probability that falls as a power of i."""
    rng = np.random.default_rng(seed)
    chance = np.minimum(1.0, 60 * (1 + np.arange(NODES)) ** -0.9)
    return [np.flatnonzero(rng.random(NODES) < chance) for _ in range(num_batches)]


def fitted(num_batches: int) -> tuple[float, ...]:
    met = np.zeros(NODES, np.int64)
    for batch in drawn(num_batches, seed=1):
        met[batch] += 1
    return fit_frequencies(np.bincount(met, minlength=num_batches + 1), num_batches)


def test_the_shares_are_a_distribution_with_the_accesses_of_the_pilot() -> None:
    share = fitted(16)
    assert sum(share) == pytest.approx(1)
    assert min(share) >= 0
    p = np.concatenate([[0], probabilities(), [1]])
    seen = sum(map(len, drawn(16, seed=1))) / 16
    assert NODES * np.dot(p, share) == pytest.approx(seen, rel=0.01)


@pytest.mark.parametrize("window", [10, 60])
@pytest.mark.parametrize("num_slots", [0, NODES // 20, NODES // 5, NODES])
def test_sixteen_batches_foretell_the_rows_of_sixty(window: int, num_slots: int) -> None:
    trace, held, fetched = drawn(60, seed=2), np.full(num_slots, -1, np.int64), 0
    for start in range(0, 60, window):
        stop = start + window
        plan = plan_residency(trace[start:stop], num_slots, held, trace[stop : stop + AHEAD])
        held, fetched = plan.final_slot_node, fetched + sum(len(batch.fetch_node) for batch in plan.batches)
    foretold = fetched_rows(fitted(16), NODES, num_slots=num_slots, window=window, num_batches=60, ahead=AHEAD)
    assert foretold == pytest.approx(fetched, rel=0.08)


def test_windows_beyond_those_drawn_fetch_what_the_last_one_drawn_did() -> None:
    share = fitted(16)
    three, six = (fetched_rows(share, NODES, num_slots=3000, window=10, num_batches=n, ahead=AHEAD) for n in (30, 60))
    two = fetched_rows(share, NODES, num_slots=3000, window=10, num_batches=20, ahead=AHEAD)
    assert six - three == pytest.approx(3 * (three - two), rel=0.05)


def test_every_batch_meeting_every_node_leaves_one_read_of_each() -> None:
    share = fit_frequencies(np.array([0, 0, 0, 500]), 3)
    assert fetched_rows(share, 500, num_slots=500, window=5, num_batches=5, ahead=0) == pytest.approx(500)
