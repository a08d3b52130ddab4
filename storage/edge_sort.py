"""Edges in any order -> CSC on disk, inside a memory budget."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from graphsys.core.errors import ConfigError, InputError
from graphsys.core.progress import Task
from graphsys.core.types import Array, EdgeChunk, EdgeType, NodeIds, edge_type_key
from graphsys.storage.csc_writer import CscWriter
from graphsys.storage.edge_records import GROUP, EdgeLayout, keep_rows
from graphsys.storage.external_sort import ExternalSort, Records, SortBudget
from graphsys.storage.flat import FlatSpec

_LOOP_PIECE = 1 << 18  # self-loop candidates that are made at once
_WRITE_PIECE = 1 << 16  # edges that are unpacked and written at once

EdgeName = Callable[[int, int], str]  # (source, destination) dense ids -> how a message names the edge


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRules:
    """What becomes of reverse edges, self-loops and duplicates."""

    undirected: bool = False
    self_loops: Literal["keep", "drop", "add"] = "keep"
    duplicates: Literal["keep", "drop", "error"] = "keep"


@dataclass(slots=True, kw_only=True)
class EdgeCounts:
    """What was found and done; filled while edges pass."""

    edges_read: int = 0
    edges_written: int = 0
    self_loops: int = 0  # found
    self_loops_dropped: int = 0
    self_loops_added: int = 0
    duplicates: int = 0  # found: given edges beyond the first of one source, destination and time
    duplicates_dropped: int = 0
    reverse_edges_added: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return plain JSON values."""
        return asdict(self)


def build_topology(
    folder: Path,
    spill: Path,
    edge_type: EdgeType,
    edges: Iterator[EdgeChunk],
    *,
    layout: EdgeLayout,
    rules: EdgeRules,
    budget: SortBudget,
    work: Task,
    edge_name: EdgeName,
    num_edges: int | None = None,
) -> tuple[dict[str, FlatSpec], EdgeCounts]:
    """Write ``topology/<edge type>`` and, with features, ``edges/<edge type>/attr`` below ``folder``.

    Within a destination edges ascend by time where there is one, then by source, then by input order; derived edges
    come last. The result depends on the edges and rules only, never on the budget.

    Args:
        folder: The store being made.
        spill: Folder for temporary files; the caller removes it.
        edges: Chunks in dense ids, in input order.
        budget: What the sort may use.
        work: Advanced by every edge twice: when it is read, and when its place is known.
        edge_name: How messages name an edge.
        num_edges: About how many edges come, or None.

    Returns:
        Manifest entries and counts.

    Raises:
        InputError: A duplicate, where the rules refuse them.
        ConfigError: Self-loops are to be added to edges with timestamps.

    Cost:
        Every edge is written to the spill file and read back once, more often where many share a few destinations.
    """
    within = edge_type[0] == edge_type[2]
    if rules.self_loops == "add" and within and layout.has_timestamp:
        raise ConfigError("self_loops: add needs edges without timestamps, for a self-loop has none; drop --time")
    counts = EdgeCounts()
    spill.mkdir(parents=True, exist_ok=True)
    sort = ExternalSort(
        spill,
        key_bounds=layout.key_bounds,
        payload_words=layout.payload_words,
        budget=budget,
        group=GROUP,
        num_records=None if num_edges is None else num_edges * (1 + (rules.undirected and within)),
    )
    try:
        for records in _records(edges, layout, rules, counts, within=within):
            sort.add(records)
            work.advance(records.shape[0])
        return _write(folder, edge_type, sort, layout, rules, counts, work, edge_name), counts
    finally:
        sort.close()


def _records(
    edges: Iterator[EdgeChunk], layout: EdgeLayout, rules: EdgeRules, counts: EdgeCounts, *, within: bool
) -> Iterator[Records]:
    for chunk in edges:
        edge_id = np.arange(counts.edges_read, counts.edges_read + chunk.num_edges) if layout.has_edge_id else None
        counts.edges_read += chunk.num_edges
        loops = chunk.src == chunk.dst if within else np.zeros(chunk.num_edges, np.bool_)
        num_loops = int(np.count_nonzero(loops))
        counts.self_loops += num_loops
        if num_loops and rules.self_loops == "drop":
            counts.self_loops_dropped += num_loops
            yield layout.pack(*_select(chunk, edge_id, ~loops))
        else:
            yield layout.pack(chunk, edge_id)
        if within and rules.undirected:
            proper, its_id = _select(chunk, edge_id, ~loops) if num_loops else (chunk, edge_id)
            yield layout.pack(_reversed(proper), its_id, derived=True)
    if within and rules.self_loops == "add":
        yield from _loop_candidates(layout)


def _select(chunk: EdgeChunk, edge_id: NodeIds | None, rows: Array) -> tuple[EdgeChunk, NodeIds | None]:
    selected = EdgeChunk(
        src=chunk.src[rows],
        dst=chunk.dst[rows],
        timestamp=None if chunk.timestamp is None else chunk.timestamp[rows],
        weight=None if chunk.weight is None else chunk.weight[rows],
        edge_attr=None if chunk.edge_attr is None else chunk.edge_attr[rows],
    )
    return selected, None if edge_id is None else edge_id[rows]


def _reversed(chunk: EdgeChunk) -> EdgeChunk:
    return EdgeChunk(
        src=chunk.dst,
        dst=chunk.src,
        timestamp=chunk.timestamp,
        weight=chunk.weight,
        edge_attr=chunk.edge_attr,
    )


def _loop_candidates(layout: EdgeLayout) -> Iterator[Records]:
    """Yield one derived self-loop per node; it becomes an edge where the node has no self-loop of its own."""
    for first in range(0, layout.num_dst, _LOOP_PIECE):
        node = np.arange(first, min(first + _LOOP_PIECE, layout.num_dst))
        weight = np.ones(node.shape[0], np.float32) if layout.has_weight else None
        # No raw edge stands behind it: its edge id is -1, its features are zeros.
        yield layout.pack(EdgeChunk(src=node, dst=node, weight=weight), np.full_like(node, -1), derived=True)


def _write(
    folder: Path,
    edge_type: EdgeType,
    sort: ExternalSort,
    layout: EdgeLayout,
    rules: EdgeRules,
    counts: EdgeCounts,
    work: Task,
    edge_name: EdgeName,
) -> dict[str, FlatSpec]:
    fields: dict[str, tuple[type, tuple[int, ...]]] = {
        name: (values.dtype.type, values.shape[1:])
        for name, values in layout.fields(np.empty((0, layout.words), np.uint64)).items()
    }
    writer = CscWriter(folder, edge_type, num_src=layout.num_src, num_dst=layout.num_dst, fields=fields)
    try:
        for block in sort.blocks():
            num_records = block.shape[0]
            kept = _apply_rules(block, edge_type, layout, rules, counts, edge_name)
            # Piece by piece: arrays that stay in the processor's cache cost no fresh memory.
            for first in range(0, kept.shape[0], _WRITE_PIECE):
                piece = kept[first : first + _WRITE_PIECE]
                src, dst = layout.ends(piece)
                writer.append(dst, src, layout.fields(piece))
            work.advance(num_records)
        counts.edges_written = writer.num_edges
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def _apply_rules(
    block: Records,
    edge_type: EdgeType,
    layout: EdgeLayout,
    rules: EdgeRules,
    counts: EdgeCounts,
    edge_name: EdgeName,
) -> Records:
    keep = np.empty(block.shape[0], np.bool_)
    drop = rules.duplicates == "drop"
    duplicates, first = keep_rows(block, layout.num_keys, drop, keep)
    if duplicates and rules.duplicates == "error":
        src, dst = layout.ends(block[first : first + 1])
        raise InputError(
            f"edge type {edge_type_key(edge_type)}: the edge {edge_name(int(src[0]), int(dst[0]))} is given twice; "
            f"remove it, or choose duplicates: keep or drop"
        )
    counts.duplicates += duplicates
    counts.duplicates_dropped += duplicates if drop else 0
    kept = block if keep.all() else block[keep]
    if edge_type[0] == edge_type[2] and (rules.undirected or rules.self_loops == "add"):
        src, dst = layout.ends(kept[layout.derived(kept)])
        added = int(np.count_nonzero(src == dst)) if rules.self_loops == "add" else 0
        counts.self_loops_added += added
        counts.reverse_edges_added += src.shape[0] - added
    return kept
