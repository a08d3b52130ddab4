"""A power-law graph with communities, as functions of a seed: any edge, feature row or label can be made alone.

Every node has a rank; its community is ``rank % communities``, and its share of the edges falls with its rank within
the community by a power law. Both ends of an edge are drawn that way: the destination from any community, the source
from the same one with probability ``homophily``, otherwise from any. Features are a mean of the node's class plus noise
that is strong for one node and averages out over its neighbours.

Source:
    Chung, Lu 2002, "Connected components in random graphs with given expected degree sequences"; the blocks follow the
    degree-corrected block model of Karrer, Newman 2011 (arXiv:1008.3926).
"""

from dataclasses import dataclass
from decimal import Decimal
from math import sqrt
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import ConfigError
from graphsys.core.seeding import derive_key
from graphsys.core.types import Features, NodeIds
from graphsys.storage.jit import njit
from graphsys.storage.random import (
    BELL_STD,
    Permutation,
    PowerLaw,
    bell,
    bounded,
    draw,
    draw_rank,
    permutation,
    permute,
    power_law,
    unpermute,
)

_ORDER, _EDGES, _NOISE, _MEANS, _SPLIT = range(1, 6)  # streams of one seed
_TRIES = 16  # redraws of an endpoint outside the graph, or of a source equal to its destination
_FEW, _SOME = 100_000, 50_000  # nodes for training and validation that any graph can do with
_ONE = np.uint64(1)
_TWO = np.uint64(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSpec:
    """What to generate; the same spec gives the same bytes on any machine."""

    nodes: int
    edges: int  # directed edges; some repeat, as in any Chung-Lu graph, and none is a self-loop
    features: int = 64
    classes: int = 16
    communities: int | None = None  # default: one per class; otherwise class = community % classes
    seed: int = 0
    homophily: float = 0.7  # share of edges whose source is drawn from the destination's community
    signal: float = 1.5  # mean distance between two classes' means, in standard deviations of the noise
    exponent: float = 2.5  # of the degree distribution P(degree) ~ degree**-exponent
    train: float | None = None  # shares of the nodes; default: at most 50 % and 100,000 nodes
    val: float | None = None  # default: at most 20 % and 50,000 nodes
    test: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what cannot be generated.

        Raises:
            ConfigError: A value is outside its range; the message names it.
        """
        for name, least in (("nodes", 2), ("edges", 1), ("features", 1), ("classes", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; give {least} or more")
        if not self.classes <= self.num_communities <= self.nodes:
            raise ConfigError(
                f"{self.num_communities} communities for {self.classes} classes and {self.nodes} nodes; "
                f"give at least as many as classes and at most as many as nodes"
            )
        for name, low, high in (("homophily", 0, 1), ("signal", 0, 1000), ("exponent", 2.05, 100)):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(f"{name} is {getattr(self, name)}; give {low} to {high}")
        if min(self.shares) < 0 or sum(self.shares) > 1 + 1e-9:
            raise ConfigError(
                f"the shares of train, val and test are {self.shares}; give 0 or more, at most 1 together"
            )

    @property
    def num_communities(self) -> int:
        """Number of communities."""
        return self.classes if self.communities is None else self.communities

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of the nodes that train, val and test take."""
        train = min(0.5, _FEW / self.nodes) if self.train is None else self.train
        val = min(0.2, _SOME / self.nodes) if self.val is None else self.val
        return train, val, self.test


class CommunityGraph(NamedTuple):
    """The numbers that the kernels need."""

    nodes: np.uint64
    communities: np.uint64
    classes: np.uint64
    homophily: np.uint64  # an edge whose draw lies below keeps to its community
    order: Permutation  # rank -> node id: hubs lie anywhere in the id space
    ranks: PowerLaw  # of the ranks within a community
    edge_key: np.uint64
    noise_key: np.uint64
    split_key: np.uint64
    split_bounds: npt.NDArray[np.uint64]  # [3] a draw below the first is train, below the second val, ...
    means: npt.NDArray[np.int64]  # [classes, D] in units of the noise's step
    scale: np.float32  # turns steps into features of unit noise


def community_graph(spec: GenerateSpec) -> CommunityGraph:
    """Return the graph that ``spec`` describes, ready for the functions below."""
    largest = -(-spec.nodes // spec.num_communities)
    decay = 1 / (Decimal(str(spec.exponent)) - 1)
    bounds = [_threshold(share) for share in np.cumsum(spec.shares)]
    return CommunityGraph(
        nodes=np.uint64(spec.nodes),
        communities=np.uint64(spec.num_communities),
        classes=np.uint64(spec.classes),
        homophily=np.uint64(_threshold(spec.homophily)),
        order=permutation(spec.nodes, derive_key(spec.seed, _ORDER)),
        ranks=power_law(largest, decay),
        edge_key=np.uint64(derive_key(spec.seed, _EDGES)),
        noise_key=np.uint64(derive_key(spec.seed, _NOISE)),
        split_key=np.uint64(derive_key(spec.seed, _SPLIT)),
        split_bounds=np.array(bounds, np.uint64),
        means=_class_means(spec),
        scale=np.float32(1 / BELL_STD),
    )


def _threshold(share: float) -> int:
    return min(int(share * (1 << 64)), (1 << 64) - 1)


def _class_means(spec: GenerateSpec) -> npt.NDArray[np.int64]:
    # Two bell-shaped vectors of D entries lie sqrt(2 D) standard deviations apart; a power of two divides exactly.
    step = round(spec.signal / sqrt(2 * spec.features) * (1 << 16))
    raw = np.empty(spec.classes * spec.features, np.int64)
    _fill_bell(raw, np.uint64(derive_key(spec.seed, _MEANS)))
    return ((raw * step) >> 16).reshape(spec.classes, spec.features)


@njit
def _fill_bell(out: npt.NDArray[np.int64], key: np.uint64) -> None:
    for i in range(out.shape[0]):
        out[i] = bell(draw(key, np.uint64(i)))


@njit
def _member(graph: CommunityGraph, community: np.uint64, key: np.uint64, counter: np.uint64) -> np.uint64:
    # Communities differ by one node when they do not divide the nodes; a rank past the end is drawn again.
    for _ in range(_TRIES):
        rank = draw_rank(graph.ranks, key, counter) * graph.communities + community
        if rank < graph.nodes:
            return rank
        counter += _TWO
    return community


@njit
def _edge(graph: CommunityGraph, index: np.uint64) -> tuple[np.uint64, np.uint64]:
    key = draw(graph.edge_key, index)
    community = bounded(draw(key, np.uint64(0)), graph.communities)
    target = _member(graph, community, key, np.uint64(4))
    if draw(key, _ONE) >= graph.homophily:
        community = bounded(draw(key, _TWO), graph.communities)
    for attempt in range(_TRIES):
        source = _member(graph, community, draw(key, np.uint64(3)), np.uint64(attempt * 2 * _TRIES))
        if source != target:
            return source, target
    return (target + _ONE) % graph.nodes, target


@njit
def fill_edges(graph: CommunityGraph, first: int, src: NodeIds, dst: NodeIds) -> None:
    """Fill ``src`` [C] and ``dst`` [C] with the node ids of the edges ``first``, ``first + 1``, ..."""
    for i in range(src.shape[0]):
        source, target = _edge(graph, np.uint64(first + i))
        src[i] = np.int64(permute(graph.order, source))
        dst[i] = np.int64(permute(graph.order, target))


@njit
def fill_labels(graph: CommunityGraph, first: int, y: NodeIds) -> None:
    """Fill ``y`` [C] with the classes of the nodes ``first``, ``first + 1``, ..."""
    for i in range(y.shape[0]):
        rank = unpermute(graph.order, np.uint64(first + i))
        y[i] = np.int64(rank % graph.communities % graph.classes)


@njit
def fill_split(graph: CommunityGraph, first: int, split: npt.NDArray[np.uint8]) -> None:
    """Fill ``split`` [C] for the nodes ``first``, ...: 1 train, 2 val, 3 test, 0 none of them."""
    for i in range(split.shape[0]):
        word = draw(graph.split_key, np.uint64(first + i))
        split[i] = 0
        for code in range(3, 0, -1):
            if word < graph.split_bounds[code - 1]:
                split[i] = code


@njit
def fill_features(graph: CommunityGraph, first: int, y: NodeIds, x: Features) -> None:
    """Fill ``x`` [C, D] for the nodes ``first``, ... whose classes are ``y`` [C].

    Sums are whole numbers and only the last two steps round, each by itself, so that no machine rounds differently.
    """
    width = x.shape[1]
    for i in range(x.shape[0]):
        base = (first + i) * width
        for j in range(width):
            steps = bell(draw(graph.noise_key, np.uint64(base + j))) + graph.means[y[i], j]
            x[i, j] = np.float32(steps) * graph.scale
