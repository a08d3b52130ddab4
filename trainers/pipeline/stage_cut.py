"""Cuts a network's layers into stages, one process each, so that the slowest stage is as fast as can be.

A pipeline is as fast as its slowest stage. The encoder runs with the first layer and the decoder with the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import ConfigError

Seconds = npt.NDArray[np.float64]

_ROUNDING = 1 + 1e-9  # sums in another order are the same cost


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ChunkCosts:
    """Seconds that every part of a network takes for every chunk, P = L + 2 parts: encoder, L layers, decoder."""

    forward: Seconds  # [P, K]
    backward: Seconds  # [P, K], the forward pass that is made anew included

    @property
    def num_layers(self) -> int:
        """Number of layers L."""
        return int(self.forward.shape[0]) - 2

    @property
    def num_chunks(self) -> int:
        """Number of chunks K."""
        return int(self.forward.shape[1])

    @property
    def of_layers(self) -> Seconds:
        """[L] seconds of each layer for all chunks, both ways; the first has the encoder's, the last the decoder's."""
        parts = (self.forward + self.backward).sum(axis=1)
        layers: Seconds = parts[1:-1].copy()
        layers[0] += parts[0]
        layers[-1] += parts[-1]
        return layers

    @classmethod
    def lockstep(cls, ways: Sequence[Self]) -> Self:
        """Return the costs of ways that exchange rows in every layer, so that the slowest sets the pace of all.

        Args:
            ways: Each way's costs for its own K chunks, in the order of slots.
        """
        forward, backward = (np.stack([getattr(way, name) for way in ways]) for name in ("forward", "backward"))
        return cls(forward=forward.max(axis=0), backward=backward.max(axis=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCut:
    """Consecutive layers per stage."""

    bounds: tuple[int, ...]  # S + 1, from 0 to L: stage s runs the layers [bounds[s], bounds[s + 1])

    @property
    def num_stages(self) -> int:
        """Number of stages S."""
        return len(self.bounds) - 1

    def layers(self, stage: int) -> range:
        """Return the layers of a stage."""
        return range(self.bounds[stage], self.bounds[stage + 1])

    def of_stages(self, parts: Seconds) -> Seconds:
        """Return the sums [S, K] of the parts' costs [L + 2, K] by stage, encoder and decoder included."""
        inner = np.add.reduceat(parts[1:-1], self.bounds[:-1], axis=0)
        inner[0] += parts[0]
        inner[-1] += parts[-1]
        return inner


def balanced_cut(cost: Seconds, num_stages: int) -> StageCut:
    """Return the cut whose slowest stage is fastest, and among those the most even one.

    Args:
        cost: [L] seconds of each layer, such as :attr:`ChunkCosts.of_layers`; not negative.
        num_stages: Stages S, each of one layer or more.

    Raises:
        ConfigError: There are more stages than layers.

    Cost:
        O(S L^2) time.

    Source:
        GNNPipe (arXiv:2308.10087): stages by dynamic programming on profiled costs.
    """
    _check(cost.shape[0], num_stages)
    before = np.concatenate([[0.0], np.cumsum(cost)])
    slowest = _best(before, num_stages, lambda total: total, np.maximum)[0] * _ROUNDING
    _, bounds = _best(before, num_stages, lambda total: np.where(total <= slowest, total * total, np.inf), np.add)
    return StageCut(bounds=bounds)


def equal_cut(num_layers: int, num_stages: int) -> StageCut:
    """Return the cut into stages of as many layers each, up to one.

    Raises:
        ConfigError: There are more stages than layers.
    """
    _check(num_layers, num_stages)
    return StageCut(bounds=tuple(num_layers * stage // num_stages for stage in range(num_stages + 1)))


def _check(num_layers: int, num_stages: int) -> None:
    if num_stages > num_layers:
        raise ConfigError(
            f"cluster.stages is {num_stages} and the network has {num_layers} layers; give at most one stage per layer"
        )
    if num_stages < 1:
        raise ConfigError(f"cluster.stages is {num_stages}; give one stage or more")


def _best(before: Seconds, num_stages: int, price: Any, join: Any) -> tuple[float, tuple[int, ...]]:
    """Return the least joined price of the stages, and the bounds that have it.

    Args:
        before: [L + 1] cost of all layers before each.
        num_stages: Stages S.
        price: Maps costs of a stage to what is joined.
        join: Puts the price of a stage and of those before it together: ``np.maximum`` or ``np.add``.
    """
    num_layers = before.shape[0] - 1
    least = np.full(num_layers + 1, np.inf)
    least[0] = 0.0
    choices = []
    for stage in range(num_stages):
        found, choice = np.full(num_layers + 1, np.inf), np.zeros(num_layers + 1, np.int64)
        for stop in range(stage + 1, num_layers + 1):
            joined = join(least[stage:stop], price(before[stop] - before[stage:stop]))
            choice[stop] = stage + int(np.argmin(joined))
            found[stop] = joined[choice[stop] - stage]
        least = found
        choices.append(choice)
    bounds = [num_layers]
    for choice in reversed(choices):
        bounds.append(int(choice[bounds[-1]]))
    return float(least[num_layers]), tuple(reversed(bounds))
