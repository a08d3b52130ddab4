"""How often nodes are accessed, learned from a few batches, and what an optimal cache makes of it.

A batch holds a node with a probability of the node's own, whatever other batches hold: seeds are shuffled and draws are
independent. How many nodes have which probability is estimated from how many were met in 0, 1, 2, ... of the pilot's
batches. From that, traces of any length can be drawn for a sample of the nodes, and the real planner run on them.

Source:
    Laird 1978, "Nonparametric maximum likelihood estimation of a mixing distribution": the estimate, by EM. Waldspurger
    et al. 2015 (SHARDS): a sample of the nodes in a cache smaller by the same factor.
"""

from functools import lru_cache
from math import lgamma

import numpy as np
import numpy.typing as npt

from graphsys.core.types import NodeIds
from graphsys.storage.residency import plan_residency

Reals = npt.NDArray[np.float64]

_LEAST = 1e-5  # probability; rarer nodes count as never met
_GRID = 64
_STEPS = 1000
_MOST_NODES = 1 << 16
_FEWEST_NODES = 1 << 10
_ACCESSES = 400_000  # in a drawn trace, about: planning it takes a tenth of a second
_DRAWS = 20_000_000
_WINDOWS = 3  # drawn at most, of many batches; the later half of them stands for all that follow
_BATCHES = 60  # drawn at least, in as many windows as they fill: until then a cache may still fill up


def fit_frequencies(met: NodeIds, num_batches: int) -> tuple[float, ...]:
    """Return the share of the nodes that has each probability of :func:`probabilities`.

    Args:
        met: [K + 1] how many nodes were in k of the K batches.
        num_batches: K.
    """
    p = probabilities()
    k = np.arange(num_batches + 1)
    choose = lgamma(num_batches + 1) - np.array([lgamma(i + 1) + lgamma(num_batches - i + 1) for i in k])
    likelihood = np.exp(choose[:, None] + k[:, None] * np.log(p) + (num_batches - k[:, None]) * np.log1p(-p))
    likelihood = np.concatenate([(k == 0).astype(float)[:, None], likelihood, (k == num_batches)[:, None]], axis=1)
    share = np.full(p.shape[0] + 2, 1 / (p.shape[0] + 2))
    seen = met / met.sum()
    for _ in range(_STEPS):
        share = share * (likelihood.T @ (seen / np.maximum(likelihood @ share, 1e-300)))
    return tuple(share.tolist())


def probabilities() -> Reals:
    """Return the grid of access probabilities, ascending, without its ends 0 and 1."""
    return np.geomspace(_LEAST, 1, _GRID + 1)[:-1]


def fetched_rows(
    share: tuple[float, ...],
    num_nodes: int,
    *,
    num_slots: int,
    window: int,
    num_batches: int,
    ahead: int,
    warm: bool = False,
) -> float:
    """Return how many rows ``num_batches`` batches fetch beyond what a cache serves, planned window by window.

    Args:
        share: What :func:`fit_frequencies` returned.
        num_nodes: N.
        num_slots: Rows that the cache holds; it is empty at first and carried over from window to window.
        window: Batches per window.
        num_batches: Batches in all.
        ahead: Batches behind a window that its plan knows of.
        warm: Whether the cache holds at first what other batches have left in it, and is not empty.
    """
    window = min(window, num_batches)
    num_windows = max(_WINDOWS, -(-_BATCHES // window))
    num_windows = num_windows if warm else min(-(-num_batches // window), num_windows)
    parts = _draw(share, num_nodes, min(num_slots, num_nodes), window, num_windows, ahead)
    whole, rest = divmod(num_batches, window)
    later = sum(parts[len(parts) // 2 :]) / len(parts[len(parts) // 2 :])
    if warm:
        return float(num_batches / window * later)
    known = list(parts[:whole]) + [later] * max(whole - len(parts), 0)
    return float(sum(known) + rest / window * later)


@lru_cache(maxsize=64)
def _draw(
    share: tuple[float, ...], num_nodes: int, num_slots: int, window: int, num_windows: int, ahead: int
) -> tuple[float, ...]:
    """Return the rows fetched in each window of a drawn trace, scaled to all nodes."""
    p = np.concatenate([[0.0], probabilities(), [1.0]])
    density = max(float(np.dot(p, share)), 1 / num_nodes)
    batches = window * num_windows
    wanted = int(max(min(_ACCESSES / (density * batches), _DRAWS / batches, _MOST_NODES), _FEWEST_NODES))
    # Nodes spread over the grid as their shares say, by rounding the running sum, so that none gets lost.
    edges = np.round(np.cumsum(share) / sum(share) * min(wanted, num_nodes)).astype(np.int64)
    chance = np.repeat(p, np.diff(edges, prepend=0))
    rng = np.random.default_rng(0)
    held = np.full(int(num_slots * chance.shape[0] / num_nodes), -1, np.int64)
    trace = [np.flatnonzero(rng.random(chance.shape[0]) < chance) for _ in range(batches + ahead)]
    rows = []
    for start in range(0, batches, window):
        stop = start + window
        plan = plan_residency(trace[start:stop], held.shape[0], held, trace[stop : stop + ahead])
        held = plan.final_slot_node
        rows.append(sum(batch.fetch_node.shape[0] for batch in plan.batches) * num_nodes / chance.shape[0])
    return tuple(rows)
