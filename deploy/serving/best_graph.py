"""Whether a graph of neighbours finds enough of a table at less cost than a scan, and the one that does."""

import math
from typing import Any

import numpy as np

from graphsys.core.progress import Progress
from graphsys.core.types import NodeIds
from graphsys.deploy.lookup import Metric
from graphsys.deploy.serving.calibrate import LADDER, calibrate, make_questions
from graphsys.deploy.serving.distinct import Copies
from graphsys.deploy.serving.exact import ExactSearch
from graphsys.deploy.serving.hnsw import NeighbourGraph, Space, fill, new_index
from graphsys.deploy.serving.wanted_index import Opened, Wanted

SCANNED_NUMBERS = 2_560_000  # up to here (20,000 rows of 128) a scan takes about a millisecond: no graph is built
_LEAST_APART = 0.5  # of some rows; a graph of vectors at equal distances takes very long to build, and finds little
_LEAST_DIM = 32  # a shorter row takes no less time to look at
_STORAGES = ("bf16", "f32")  # tried in this order: half the bytes, unless vectors are too near to each other for that
_TRIALS = (5_000, 20_000)  # rows
_DOUBT = 4  # a forecast must be that much beyond what is worth its while, for it is a rough one
_ROWS_PER_CANDIDATE = 300  # scanned in the time that a candidate of the graph takes


def is_scanned(rows: int, dim: int) -> bool:
    """Whether vectors are so few and short that every search compares with all of them."""
    return rows * max(dim, _LEAST_DIM) <= SCANNED_NUMBERS


def best_graph(
    wanted: Wanted, exact: ExactSearch, node: NodeIds, aside: NodeIds, copies: Copies, progress: Progress
) -> Opened:
    """Return a graph that finds enough at less cost than a scan, or why there is none."""
    content: dict[str, Any] = {"kind": "exact", "num_vectors": int(node.shape[0]), "longest": _longest(exact)}
    most = node.shape[0] // _ROWS_PER_CANDIDATE
    if is_scanned(node.shape[0], exact.vectors.shape[1]):
        reason = f"{node.shape[0]} distinct vectors are scanned at once"
        return Opened(graph=None, content={**content, "recall": {}, "reason": reason})
    if _share_apart(wanted, exact, node) < _LEAST_APART:
        reason = "most vectors are so near to others that a graph could not tell them apart"
        return Opened(graph=None, content={**content, "recall": {}, "reason": reason})
    forecast = _forecast(wanted, exact, node, progress)
    if forecast is not None and forecast > _DOUBT * most:
        reason = f"by trials on some rows a graph would weigh {forecast} candidates, which costs more than a scan"
        return Opened(graph=None, content={**content, "recall": {}, "reason": reason})
    measured = {}
    for storage in _STORAGES if wanted.storage == "auto" else (wanted.storage,):
        graph = _filled(wanted, exact, storage, (node, aside, copies), progress)
        found = calibrate(graph, make_questions(exact, node, wanted.metric), most=most, progress=progress)
        if found.expansion is not None:
            told = {"kind": "graph", "stored_as": storage, "expansion": found.expansion, "recall": found.recall}
            return Opened(graph=graph, content={**content, **told})
        graph.close()
        measured = found.recall
    reason = f"a graph that weighs up to {most} candidates found too little, and more cost more than a scan"
    return Opened(graph=None, content={**content, "recall": measured, "reason": reason})


def _share_apart(wanted: Wanted, exact: ExactSearch, node: NodeIds) -> float:
    """Return the share of some rows that differ from all others of them in 16 bits, where the graph would have them."""
    drawn = np.random.default_rng(2).choice(node, min(_TRIALS[0], node.shape[0]), replace=False)
    space = Space(metric=wanted.metric, longest=_longest(exact))
    placed = space.place(exact.vectors[drawn].astype(np.float32, copy=False)).astype(np.float16)
    return float(np.unique(placed, axis=0).shape[0] / drawn.shape[0])


def _forecast(wanted: Wanted, exact: ExactSearch, node: NodeIds, progress: Progress) -> int | None:
    """Return how many candidates a graph of all rows would have to weigh, by two trials; None: too few rows to ask."""
    if node.shape[0] < 2 * _TRIALS[-1]:
        return None
    few = _trial(wanted, exact, node, _TRIALS[0], progress)
    many = None if few is None else _trial(wanted, exact, node, _TRIALS[-1], progress)
    if few is None or many is None:
        return LADDER[-1] * int(node.shape[0]) // _TRIALS[-1]
    growth = max(many / few, 1.0)
    steps = math.log(node.shape[0] / _TRIALS[-1]) / math.log(_TRIALS[-1] / _TRIALS[0])
    forecast: int = math.ceil(many * math.exp(math.log(growth) * steps))
    return forecast


def _trial(wanted: Wanted, exact: ExactSearch, node: NodeIds, rows: int, progress: Progress) -> int | None:
    drawn = np.sort(np.random.default_rng(1).choice(node, rows, replace=False))
    few = ExactSearch(exact.vectors[drawn], threads=wanted.threads)
    own = np.arange(rows)
    storage = _STORAGES[0] if wanted.storage == "auto" else wanted.storage
    graph = _filled(wanted, few, storage, (own, own[:0], Copies.of(own)), progress)
    found = calibrate(graph, make_questions(few, own, wanted.metric), most=LADDER[-1], progress=progress)
    graph.close()
    few.close()
    return found.expansion


def _filled(
    wanted: Wanted, exact: ExactSearch, storage: str, parts: tuple[NodeIds, NodeIds, Copies], progress: Progress
) -> NeighbourGraph:
    node, aside, copies = parts
    space = Space(metric=wanted.metric, longest=_longest(exact))
    index = new_index(space, exact.vectors.shape[1], storage)
    fill(index, space, exact.vectors, node, threads=wanted.threads, progress=progress)
    return NeighbourGraph(index, space, exact.vectors, copies, aside=aside, expansion=LADDER[0], threads=wanted.threads)


def _longest(exact: ExactSearch) -> float:
    return float(np.nanmax(exact.lengths, initial=0)) or 1.0


def graph_nodes(owner: NodeIds, exact: ExactSearch, metric: Metric) -> tuple[NodeIds, NodeIds]:
    """Return the nodes [U] that the graph holds, and those [Z] without direction that it leaves out."""
    first = owner == np.arange(owner.shape[0])
    if metric != "cosine":
        return np.flatnonzero(first).astype(np.int64), np.empty(0, np.int64)
    flat = exact.lengths == 0
    return np.flatnonzero(first & ~flat).astype(np.int64), np.flatnonzero(flat).astype(np.int64)
