"""The CSC on disk equals a plain reference, for every rule and every budget."""

from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pytest
from helpers.reference_topology import Edge, reference_topology
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.errors import ConfigError, InputError
from graphsys.core.progress import SILENT, task
from graphsys.core.types import EdgeChunk, EdgeType
from graphsys.storage.edge_records import EdgeLayout
from graphsys.storage.edge_sort import EdgeCounts, EdgeRules, build_topology
from graphsys.storage.external_sort import SortBudget
from graphsys.storage.flat import FlatArray

EDGE_TYPE: EdgeType = ("a", "to", "a")
LOOPS: tuple[Literal["keep", "drop", "add"], ...] = ("keep", "drop", "add")
REPEATS: tuple[Literal["keep", "drop"], ...] = ("keep", "drop")
RULES = [
    EdgeRules(undirected=undirected, self_loops=loops, duplicates=duplicates)
    for undirected, loops, duplicates in product((False, True), LOOPS, REPEATS)
]


ROOMY = SortBudget.within(8 << 20, 1)
TINY = SortBudget(bucket_bytes=24 << 10, buffer_bytes=0, max_buckets=4)


def shown(rules: EdgeRules) -> str:
    return f"{rules.undirected}-{rules.self_loops}-{rules.duplicates}"


def random_edges(seed: int, num_nodes: int, num_edges: int, *, timed: bool) -> list[Edge]:
    """Return edges with hubs, self-loops, repeats and reverse pairs."""
    rng = np.random.default_rng(seed)
    src, dst = (num_nodes * rng.random((2, num_edges)) ** 2).astype(int)
    time = rng.integers(-3, 3, num_edges) if timed else np.zeros(num_edges, int)
    return [
        Edge(dst=int(dst[row]), time=int(time[row]), src=int(src[row]), edge_id=row, weight=row / 2)
        for row in range(num_edges)
    ]


def build(
    folder: Path,
    edges: list[Edge],
    num_nodes: int,
    rules: EdgeRules,
    *,
    timed: bool = False,
    payload: bool = False,
    budget: SortBudget = ROOMY,
) -> tuple[dict[str, Any], EdgeCounts]:
    """Return the arrays of the topology by name, and the counts."""
    layout = EdgeLayout(
        num_src=num_nodes,
        num_dst=num_nodes,
        has_timestamp=timed,
        has_weight=payload,
        has_edge_id=payload,
        num_edge_features=3 if payload else 0,
    )

    def column(name: str, dtype: type) -> Any:
        return np.array([getattr(edge, name) for edge in edges], dtype)

    whole = {name: column(name, np.int64) for name in ("src", "dst", "time")} | {"weight": column("weight", np.float32)}

    def chunks() -> Any:
        for start in range(0, len(edges), 97):
            part = {name: values[start : start + 97] for name, values in whole.items()}
            yield EdgeChunk(
                src=part["src"],
                dst=part["dst"],
                timestamp=part["time"] if timed else None,
                weight=part["weight"] if payload else None,
                edge_attr=part["weight"][:, None] + np.arange(3, dtype=np.float32) if payload else None,
            )

    with task(SILENT, "", None, "") as work:
        specs, counts = build_topology(
            folder,
            folder / "spill",
            EDGE_TYPE,
            chunks(),
            layout=layout,
            rules=rules,
            budget=budget,
            work=work,
            edge_name=lambda src, dst: f"from {src} to {dst}",
            num_edges=len(edges),
        )
    arrays = {name.rpartition("/")[2]: FlatArray(folder / name, spec).read() for name, spec in specs.items()}
    return arrays, counts


@pytest.mark.parametrize("budget", [ROOMY, TINY], ids=["in memory", "spilled"])
@pytest.mark.parametrize("rules", RULES, ids=shown)
@pytest.mark.parametrize("payload", [False, True])
def test_the_topology_equals_the_reference(rules: EdgeRules, payload: bool, budget: SortBudget, tmp_path: Path) -> None:
    check(tmp_path, rules, timed=False, payload=payload, budget=budget)


@pytest.mark.parametrize("budget", [ROOMY, TINY], ids=["in memory", "spilled"])
@pytest.mark.parametrize("rules", [rules for rules in RULES if rules.self_loops != "add"], ids=shown)
def test_edges_with_times_equal_the_reference(rules: EdgeRules, budget: SortBudget, tmp_path: Path) -> None:
    check(tmp_path, rules, timed=True, payload=True, budget=budget)


def check(folder: Path, rules: EdgeRules, *, timed: bool, payload: bool, budget: SortBudget) -> None:
    num_nodes = 50
    edges = random_edges(3, num_nodes, 3000, timed=timed)
    expected = reference_topology(edges, num_nodes, rules)
    arrays, counts = build(folder, edges, num_nodes, rules, timed=timed, payload=payload, budget=budget)
    assert counts.as_dict() == expected.counts
    assert arrays["indices"].tolist() == [edge.src for edge in expected.edges]
    degree = np.bincount([edge.dst for edge in expected.edges], minlength=num_nodes)
    assert arrays["indptr"].tolist() == [0, *np.cumsum(degree)]
    if timed:
        assert arrays["timestamp"].tolist() == [edge.time for edge in expected.edges]
    if payload:
        assert arrays["edge_id"].tolist() == [edge.edge_id for edge in expected.edges]
        assert arrays["weight"].tolist() == [edge.weight for edge in expected.edges]
        features = [[0, 0, 0] if e.edge_id < 0 else [e.weight, e.weight + 1, e.weight + 2] for e in expected.edges]
        assert arrays["attr"].tolist() == features


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    num_nodes=st.integers(1, 40),
    num_edges=st.integers(0, 300),
    rules=st.sampled_from(RULES),
)
def test_small_graphs_of_any_shape_equal_the_reference(
    seed: int, num_nodes: int, num_edges: int, rules: EdgeRules
) -> None:
    edges = random_edges(seed, num_nodes, num_edges, timed=False)
    expected = reference_topology(edges, num_nodes, rules)
    with TemporaryDirectory() as folder:
        arrays, counts = build(Path(folder), edges, num_nodes, rules)
    assert counts.as_dict() == expected.counts
    assert arrays["indices"].tolist() == [edge.src for edge in expected.edges]
    assert arrays["indptr"].shape == (num_nodes + 1,)


def test_a_duplicate_is_refused_by_its_ends_where_the_rules_say_so(tmp_path: Path) -> None:
    edges = [Edge(dst=dst, time=0, src=src, edge_id=0, weight=0) for src, dst in ((1, 2), (2, 1), (0, 2), (1, 2))]
    with pytest.raises(InputError, match="a__to__a: the edge from 1 to 2 is given twice"):
        build(tmp_path, edges, 3, EdgeRules(duplicates="error"))


def test_an_edge_and_its_reverse_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    edges = [Edge(dst=dst, time=0, src=src, edge_id=0, weight=0) for src, dst in ((1, 2), (2, 1))]
    rules = EdgeRules(undirected=True, duplicates="error")
    _, counts = build(tmp_path, edges, 3, rules)
    assert (counts.edges_written, counts.reverse_edges_added) == (2, 0)


def test_self_loops_are_not_added_to_edges_with_times(tmp_path: Path) -> None:
    edges = random_edges(0, 5, 10, timed=True)
    with pytest.raises(ConfigError, match="self_loops: add needs edges without timestamps"):
        build(tmp_path, edges, 5, EdgeRules(self_loops="add"), timed=True)
