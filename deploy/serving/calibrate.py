"""How many candidates a graph must weigh to find what an exact search finds: measured on the table itself."""

from dataclasses import dataclass

import numpy as np

from graphsys.core.progress import SILENT, Progress, task
from graphsys.core.types import NodeIds
from graphsys.deploy.lookup import Doubles, Metric
from graphsys.deploy.serving.exact import ExactSearch
from graphsys.deploy.serving.hnsw import NeighbourGraph
from graphsys.deploy.serving.nearness import MISSING

TARGET = 0.995  # recall to reach on the questions tried, so that unseen ones have 0.99
WANTED = 10
LADDER = (32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
_QUESTIONS = 200  # of each kind
_NOISE = 0.25  # of a moved row, as a share of its distance to the mean of the rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """One kind of question with its true answers."""

    kind: str
    query: Doubles  # [Q, dim]
    left_out: NodeIds  # [Q]
    least: Doubles  # [Q] nearness of the last true neighbour
    held: NodeIds  # [Q] true neighbours


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured."""

    expansion: int | None  # the least tried that reaches the target for every kind of question; None: none does
    recall: dict[str, float]  # by kind of question, with the last expansion tried


def make_questions(exact: ExactSearch, node: NodeIds, metric: Metric, seed: int = 0) -> list[Questions]:
    """Return questions of three kinds about the vectors of ``node``, answered exactly.

    Rows of the table (which do not find themselves), rows that were moved, and points half way between two rows.
    """
    rng = np.random.default_rng(seed)

    def rows() -> tuple[NodeIds, Doubles]:
        drawn = rng.choice(node, min(_QUESTIONS, node.shape[0]), replace=False)
        return drawn, exact.vectors[drawn].astype(np.float64)

    own, of_own = rows()
    _, base = rows()
    _, one = rows()
    _, other = rows()
    spread = np.linalg.norm(base - base.mean(axis=0), axis=1, keepdims=True) / np.sqrt(base.shape[1])
    moved = base + _NOISE * spread * rng.standard_normal(base.shape)
    nobody = np.full(own.shape[0], MISSING, np.int64)
    kinds = {"rows": (of_own, own), "moved": (moved, nobody), "between": ((one + other) / 2, nobody)}
    return [_answered(exact, kind, query, left_out, metric) for kind, (query, left_out) in kinds.items()]


def _answered(exact: ExactSearch, kind: str, query: Doubles, left_out: NodeIds, metric: Metric) -> Questions:
    score, node = exact.search(query, WANTED, metric, left_out)
    held = (node != MISSING).sum(axis=1)
    least = np.take_along_axis(score, np.maximum(held - 1, 0)[:, None], axis=1)[:, 0]
    return Questions(kind=kind, query=query, left_out=left_out, least=least, held=held)


def recall(graph: NeighbourGraph, questions: Questions) -> float:
    """Return the share of true neighbours found; one as near as the last true one counts as true."""
    score, _ = graph.search(questions.query, WANTED, questions.left_out)
    hits = (score >= questions.least[:, None]).sum(axis=1)
    return float(np.minimum(hits, questions.held).sum() / max(questions.held.sum(), 1))


def calibrate(
    graph: NeighbourGraph, questions: list[Questions], *, most: int, progress: Progress = SILENT
) -> Calibration:
    """Let ``graph`` weigh as few candidates as reach the target, and say what was measured.

    Args:
        most: Largest expansion to try; beyond it an exact search costs less.
    """
    measured: dict[str, float] = {}
    steps = [expansion for expansion in LADDER if expansion <= most] or [LADDER[0]]
    with task(progress, "measure recall", len(steps), "expansions") as work:
        for expansion in steps:
            graph.set_expansion(expansion)
            measured = {}
            for each in questions:
                measured[each.kind] = recall(graph, each)
                if measured[each.kind] < TARGET:
                    break
            else:
                return Calibration(expansion=expansion, recall=measured)
            work.advance()
    return Calibration(expansion=None, recall=measured)
