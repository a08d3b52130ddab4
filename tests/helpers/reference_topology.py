"""What an import makes of edges, written as slowly and plainly as possible."""

from collections import defaultdict
from dataclasses import dataclass

from graphsys.storage.edge_sort import EdgeRules


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Edge:
    """One edge in dense ids; ordered as a store orders them."""

    dst: int
    time: int
    src: int
    edge_id: int  # row of the raw input; -1 for an added self-loop
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """Edges in CSC order, and the counts of the summary."""

    edges: list[Edge]
    counts: dict[str, int]


def reference_topology(raw: list[Edge], num_nodes: int, rules: EdgeRules) -> Expected:
    """Apply ``rules`` to the raw edges of one node type."""
    loops = [edge for edge in raw if edge.src == edge.dst]
    given = [edge for edge in raw if edge.src != edge.dst] if rules.self_loops == "drop" else raw
    groups: dict[tuple[int, int, int], tuple[list[Edge], list[Edge]]] = defaultdict(lambda: ([], []))
    for edge in given:
        groups[edge.dst, edge.time, edge.src][0].append(edge)
    if rules.undirected:
        for edge in raw:
            if edge.src != edge.dst:
                turned = Edge(dst=edge.src, time=edge.time, src=edge.dst, edge_id=edge.edge_id, weight=edge.weight)
                groups[turned.dst, turned.time, turned.src][1].append(turned)
    if rules.self_loops == "add":
        for node in range(num_nodes):
            groups[node, 0, node][1].append(Edge(dst=node, time=0, src=node, edge_id=-1, weight=1.0))
    edges: list[Edge] = []
    counts = dict.fromkeys(("duplicates", "duplicates_dropped", "reverse_edges_added", "self_loops_added"), 0)
    for key in sorted(groups):
        first, derived = groups[key]
        surplus = max(len(first) - 1, 0)
        wanted = 1 if rules.duplicates == "drop" else max(len(first), len(derived))
        edges += (first + derived)[:wanted]
        counts["duplicates"] += surplus
        counts["duplicates_dropped"] += surplus if rules.duplicates == "drop" else 0
        added = "self_loops_added" if key[0] == key[2] else "reverse_edges_added"
        counts[added] += max(wanted - len(first), 0)
    counts |= {"edges_read": len(raw), "edges_written": len(edges), "self_loops": len(loops)}
    counts["self_loops_dropped"] = len(loops) if rules.self_loops == "drop" else 0
    return Expected(edges=edges, counts=counts)
