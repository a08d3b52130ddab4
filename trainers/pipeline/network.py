"""What a forecast must know of a network, of a graph in parts, and of the machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from graphsys.models.layered import LayeredModel
from graphsys.models.layered_parts import stage_parameters
from graphsys.trainers.pipeline.kept import kept_bytes
from graphsys.trainers.pipeline.stage_cut import ChunkCosts, Seconds

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkShape:
    """Widths and sizes of a network of L layers."""

    num_features: int  # columns of the features
    hidden_channels: int  # columns between layers
    shared_channels: int  # columns of the rows that all layers share
    message_channels: tuple[int, ...]  # [L] columns of each layer's messages
    layer_weights: tuple[int, ...]  # [L] numbers trained in each layer; encoder in the first, decoder in the last
    kept_bytes: tuple[int, ...]  # [L + 2] per node, that autograd keeps of encoder, layers and decoder

    @classmethod
    def of(cls, model: LayeredModel, num_features: int) -> Self:
        """Return the shape of ``model``."""
        layers = range(model.num_layers)
        parts = [stage_parameters(model, num_features, layer, layer + 1).values() for layer in layers]
        return cls(
            num_features=num_features,
            hidden_channels=model.hidden_channels,
            shared_channels=model.shared_channels,
            message_channels=tuple(model.layer(layer).message_channels for layer in layers),
            layer_weights=tuple(sum(weight.numel() for weight in part) for part in parts),
            kept_bytes=kept_bytes(model, num_features),
        )

    @property
    def num_layers(self) -> int:
        """Number of layers L."""
        return len(self.message_channels)

    @property
    def row_channels(self) -> int:
        """Columns that travel between stages."""
        return self.hidden_channels + self.shared_channels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GraphSplit:
    """A graph in W ways of T chunks each."""

    nodes: Counts  # [W, T] nodes of each chunk
    edges: Counts  # [W, T] in-edges of each chunk's nodes
    mirrors: tuple[int, ...]  # [W] nodes of other ways that each way needs messages of

    @property
    def num_ways(self) -> int:
        """Number of ways W."""
        return int(self.nodes.shape[0])

    @property
    def num_slots(self) -> int:
        """Chunks T of each way."""
        return int(self.nodes.shape[1])

    @property
    def num_nodes(self) -> int:
        """Nodes N of the graph."""
        return int(self.nodes.sum())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostRates:
    """Seconds that the parts of a network, encoder, layers and decoder, take for a chunk: linear in its size."""

    forward: Seconds  # [L + 2, 3] seconds per chunk, per node and per in-edge
    backward: Seconds  # [L + 2, 3] likewise

    @classmethod
    def fit(cls, costs: ChunkCosts, nodes: Sequence[int] | Counts, edges: Sequence[int] | Counts) -> Self:
        """Return the rates that come nearest to measured costs, none of them negative.

        Args:
            costs: Of K chunks.
            nodes: [K] nodes of the chunks.
            edges: [K] in-edges of the chunks' nodes.
        """
        size = _size(nodes, edges)
        forward, backward = (
            np.array([_fit_one(size, part) for part in cost]) for cost in (costs.forward, costs.backward)
        )
        return cls(forward=forward, backward=backward)

    def costs(self, nodes: Sequence[int] | Counts, edges: Sequence[int] | Counts) -> ChunkCosts:
        """Return the costs of chunks of ``nodes`` [K] nodes and ``edges`` [K] in-edges."""
        size = _size(nodes, edges).T
        return ChunkCosts(forward=self.forward @ size, backward=self.backward @ size)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"forward": self.forward.tolist(), "backward": self.backward.tolist()}


def _fit_one(size: Seconds, cost: Seconds) -> Seconds:
    """Return the rates [3], not negative, that explain ``cost`` [K] by ``size`` [K, 3] with the least squares.

    The best rates leave some of the columns out and are ordinary least squares on the others: all choices are tried.
    """
    scale = size.max(axis=0).clip(min=1)  # columns of like magnitude keep the solver exact
    best, least = np.zeros(3), float(np.square(cost).sum())
    for used in (list(some) for count in (1, 2, 3) for some in combinations(range(3), count)):
        rates = np.linalg.lstsq(size[:, used] / scale[used], cost, rcond=None)[0] / scale[used]
        error = float(np.square(size[:, used] @ rates - cost).sum())
        if (rates >= 0).all() and error < least:
            best, least = np.zeros(3), error
            best[used] = rates
    return best


def _size(nodes: Sequence[int] | Counts, edges: Sequence[int] | Counts) -> Seconds:
    """Return [K, 3]: one, nodes and edges of each chunk."""
    size: Seconds = np.stack([np.ones(len(nodes)), np.asarray(nodes), np.asarray(edges)], axis=1).astype(np.float64)
    return size
