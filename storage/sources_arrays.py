"""Raw graphs made of arrays by well-known names: ``.npz`` files, and ``.npy`` pieces in a folder.

Ids are row numbers wherever the arrays say how many nodes there are; otherwise the distinct ids of the edges.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from graphsys.core.errors import InputError, NodeIdError
from graphsys.core.types import Array
from graphsys.storage.array_bundle import ArrayBundle
from graphsys.storage.array_files import ArrayFile, Cursor, numeric, open_npy, open_npz
from graphsys.storage.checks import as_int64
from graphsys.storage.csr_rows import CsrRows, find_csr
from graphsys.storage.sources import (
    EdgeTable,
    GraphSource,
    NodeChunk,
    NodeTable,
    RawEdgeChunk,
    SourceSpec,
    rows_per_chunk,
)
from graphsys.storage.split_arrays import Codes, find_splits, num_masked, read_splits

_TIMES = ("t", "timestamp", "time")
_WEIGHTS = ("edge_weight", "weight")
_ATTRS = ("edge_attr", "edge_features")


def open_npz_graph(path: Path, spec: SourceSpec) -> GraphSource:
    """Open a ``.npz`` file as :func:`open_arrays` describes."""
    return open_arrays(open_npz(path), (path,), path.name, spec)


def open_npy_graph(edges: Path, nodes: Path | None, spec: SourceSpec) -> GraphSource:
    """Open a ``.npy`` file of edges [2, E] or [E, 2], and perhaps one of features [N, D]."""
    arrays = {"edge_index": open_npy(edges)}
    if nodes is not None:
        arrays["x"] = open_npy(nodes)
    return open_arrays(arrays, tuple(array.path for array in arrays.values()), edges.name, spec)


def open_arrays(
    arrays: Mapping[str, ArrayFile], files: tuple[Path, ...], description: str, spec: SourceSpec
) -> GraphSource:
    """Return the source that arrays by well-known names describe.

    ``edge_index`` or ``src`` and ``dst``; ``t``; ``edge_weight``; ``edge_attr``; ``x`` or ``x_indptr``, ``x_indices``,
    ``x_data``, ``x_shape``; ``y``, or ``labels`` [2, M] pairs (node, label); ``train``, ``val``, ``test`` as indices or
    masks; ``num_nodes``. The spec's ``label``, ``time``, ``weight``, and one name each in ``features`` and
    ``edge_features``, name other arrays.

    Raises:
        InputError: There are no edges, or the arrays disagree.
        NodeIdError: A split or label names a node that is not there.
    """
    bundle = ArrayBundle(arrays, description)
    edges = _find_edges(bundle, spec)
    nodes = _find_nodes(bundle, spec, edges)
    return GraphSource(
        nodes=() if nodes is None else (nodes.table(spec.node_type),),
        edges=(edges.table(spec, row_numbers=nodes is not None),),
        files=files,
        description=description,
        ignored=bundle.ignored(),
        config=spec.config(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edges:
    """The arrays of the edges, each of E rows; ``src`` and ``dst`` may be the columns of one array."""

    columns: dict[str, ArrayFile]  # src, dst or both in one "pairs" [E, 2]; timestamp, weight, edge_attr
    num_edges: int

    def chunks(self) -> Iterator[dict[str, Array]]:
        """Yield the columns side by side, ``pairs`` resolved into src and dst."""
        rows = rows_per_chunk(sum(array.row_nbytes for array in self.columns.values()))
        for first, found in _side_by_side(self.columns, self.num_edges, rows):
            if "pairs" in found:
                pairs = found.pop("pairs")
                found |= {"src": pairs[:, 0], "dst": pairs[:, 1]}
            for end in ("src", "dst"):
                found[end] = as_int64(found[end], partial(self._place, end, first))
            yield found

    def _place(self, end: str, first: int, row: int, _: int) -> str:
        array = self.columns["pairs" if "pairs" in self.columns else end]
        return f"{array.shown}: the {end} of edge {first + row}"

    def table(self, spec: SourceSpec, *, row_numbers: bool) -> EdgeTable:
        def chunks() -> Iterator[RawEdgeChunk]:
            first = 0
            for found in self.chunks():
                if not row_numbers:
                    _refuse_negative(found, first)
                first += found["src"].shape[0]
                yield RawEdgeChunk(
                    src=found["src"],
                    dst=found["dst"],
                    timestamp=found.get("timestamp"),
                    weight=found.get("weight"),
                    edge_attr=found.get("edge_attr"),
                )

        return EdgeTable(edge_type=spec.edge_type, chunks=chunks, num_edges=self.num_edges)

    def largest_id(self) -> int:
        """Return the largest endpoint, -1 without edges."""
        return max((int(max(found["src"].max(), found["dst"].max())) for found in self.chunks()), default=-1)


def _refuse_negative(found: dict[str, Array], first: int) -> None:
    for end in ("src", "dst"):
        bad = np.flatnonzero(found[end] < 0)
        if bad.size:
            raise NodeIdError(
                f"edge {first + int(bad[0])} has the {end} {found[end][bad[0]]}; ids in arrays are 0 or more"
            )


def _find_edges(bundle: ArrayBundle, spec: SourceSpec) -> _Edges:
    ends = _find_ends(bundle, spec)
    num_edges = next(iter(ends.values())).num_rows
    if len(spec.edge_features) > 1:
        raise InputError(f"arrays hold all edge features in one; name one array, not {', '.join(spec.edge_features)}")
    optional = {
        "timestamp": bundle.choose(spec.time, _TIMES, "times"),
        "weight": bundle.choose(spec.weight, _WEIGHTS, "weights"),
        "edge_attr": bundle.choose(next(iter(spec.edge_features), None), _ATTRS, "edge features"),
    }
    columns = ends | {name: array for name, array in optional.items() if array is not None}
    for array in columns.values():
        if array.num_rows != num_edges:
            raise InputError(f"{array.shown} has {array.num_rows} rows for {num_edges} edges; row counts must agree")
    return _Edges(columns=columns, num_edges=num_edges)


def _find_ends(bundle: ArrayBundle, spec: SourceSpec) -> dict[str, ArrayFile]:
    pairs = bundle.get("edge_index")
    if pairs is None:
        src, dst = bundle.get(spec.src), bundle.get(spec.dst)
        if src is None or dst is None:
            raise InputError(
                f"{bundle.description} has no edges: expected 'edge_index' [2, E], or '{spec.src}' and '{spec.dst}'; "
                f"it has {bundle.listing()}"
            )
        found = {"src": src, "dst": dst}
    elif len(pairs.shape) != 2 or 2 not in pairs.shape:
        raise InputError(f"{pairs.shown} has shape {list(pairs.shape)}; expected [2, E]")
    elif pairs.shape[0] == 2:
        # Rows of a C-ordered array lie one behind the other; those of a Fortran-ordered one alternate.
        found = {"pairs": pairs.transposed()} if pairs.fortran else {"src": pairs.part(0), "dst": pairs.part(1)}
    else:
        found = {"pairs": pairs}
        if pairs.fortran:
            turned = pairs.transposed()
            found = {"src": turned.part(0), "dst": turned.part(1)}
    return {name: numeric(array, "iuf", "whole numbers (node ids)") for name, array in found.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nodes:
    """What arrays say of the nodes, row by row."""

    num_nodes: int
    x: ArrayFile | CsrRows | None
    y: ArrayFile | None
    pairs: Array | None  # [2, M] (node, label), nodes ascending
    split: Codes | None

    def table(self, node_type: str) -> NodeTable:
        held = sum(values.nbytes for values in (self.split, self.pairs) if values is not None)
        return NodeTable(node_type=node_type, num_nodes=self.num_nodes, chunks=self._chunks, reading_bytes=held)

    def _chunks(self) -> Iterator[NodeChunk]:
        dense = self.x if isinstance(self.x, ArrayFile) else None
        rows = rows_per_chunk(self._row_nbytes())
        sparse = self.x.blocks(rows) if isinstance(self.x, CsrRows) else None
        columns = {name: array for name, array in (("x", dense), ("y", self.y)) if array is not None}
        for first, found in _side_by_side(columns, self.num_nodes, rows):
            count = min(rows, self.num_nodes - first)
            yield NodeChunk(
                num_rows=count,
                x=found.get("x") if sparse is None else next(sparse),
                y=found.get("y") if self.pairs is None else _label_sets(self.pairs, first, count),
                split=None if self.split is None else self.split[first : first + count],
            )
        if sparse is not None:
            next(sparse, None)  # lets it check its end

    def _row_nbytes(self) -> int:
        x = self.x.shape[1] * 4 if isinstance(self.x, CsrRows) else 0 if self.x is None else self.x.row_nbytes
        return x + (0 if self.y is None else self.y.row_nbytes)


def _side_by_side(columns: Mapping[str, ArrayFile], num_rows: int, rows: int) -> Iterator[tuple[int, dict[str, Array]]]:
    """Yield (first row, values by name) of runs of at most ``rows`` rows."""
    with ExitStack() as stack:
        cursors: dict[str, Cursor] = {name: stack.enter_context(array.cursor()) for name, array in columns.items()}
        for first in range(0, num_rows, rows):
            count = min(rows, num_rows - first)
            yield first, {name: cursor.take(count) for name, cursor in cursors.items()}


def _find_nodes(bundle: ArrayBundle, spec: SourceSpec, edges: _Edges) -> _Nodes | None:
    """Return what the arrays say of nodes, None when they say nothing."""
    if len(spec.features) > 1:
        raise InputError(f"arrays hold all features in one; name one array, not {', '.join(spec.features)}")
    x = find_csr(bundle) or bundle.choose(next(iter(spec.features), None), ("x",), "features")
    y, pairs = _find_labels(bundle, spec)
    splits = find_splits(bundle)
    stated = {array.shown: array.num_rows for array in (x, y) if isinstance(array, ArrayFile)}
    if isinstance(x, CsrRows):
        stated[x.indptr.shown] = x.shape[0]
    declared = bundle.get("num_nodes")
    if declared is not None:
        stated[declared.shown] = _declared_count(declared)
    for array in splits.values():
        masked = num_masked(array, next(iter(stated.values()), None))
        if masked is not None:
            stated[array.shown] = masked
    if not stated and pairs is None and not splits:
        return None
    num_nodes = _agreed(stated) if stated else _count_ids(edges, pairs)
    return _Nodes(
        num_nodes=num_nodes,
        x=x,
        y=y,
        pairs=_checked_pairs(pairs, num_nodes),
        split=read_splits(splits, num_nodes, spec.split_index, bundle),
    )


def _declared_count(array: ArrayFile) -> int:
    values = numeric(array, "iu", "one whole number").read().reshape(-1)
    if values.shape[0] != 1 or values[0] < 0:
        raise InputError(f"{array.shown} is {values[:3].tolist()}; expected one number of nodes, 0 or more")
    return int(values[0])


def _agreed(stated: dict[str, int]) -> int:
    (first, num_nodes), *others = stated.items()
    for name, count in others:
        if count != num_nodes:
            raise InputError(f"{first} says {num_nodes} nodes and {name} says {count}; row counts must agree")
    return num_nodes


def _count_ids(edges: _Edges, pairs: Array | None) -> int:
    """Return one more than the largest id that anything names."""
    return 1 + max(edges.largest_id(), -1 if pairs is None or pairs.size == 0 else int(pairs[0].max()))


def _find_labels(bundle: ArrayBundle, spec: SourceSpec) -> tuple[ArrayFile | None, Array | None]:
    """Return labels by node, or pairs [2, M] of node and label, ordered by node."""
    y = bundle.choose(spec.label, ("y",), "labels")
    if y is not None:
        return y, None
    labels = bundle.get("labels")
    if labels is None or labels.dtype.kind not in "iu" or len(labels.shape) != 2 or labels.shape[0] != 2:
        return labels, None
    pairs = labels.read().astype(np.int64)
    return None, pairs[:, np.argsort(pairs[0], kind="stable")]


def _checked_pairs(pairs: Array | None, num_nodes: int) -> Array | None:
    if pairs is not None and pairs.size:
        if pairs[0, 0] < 0 or pairs[0, -1] >= num_nodes:
            worst = pairs[0, 0] if pairs[0, 0] < 0 else pairs[0, -1]
            raise NodeIdError(f"labels: node {worst} is outside [0, {num_nodes})")
        if pairs[1].min() < 0:
            raise InputError(f"labels: the label {pairs[1].min()} is out of range; labels count from 0")
    return pairs


def _label_sets(pairs: Array, first: int, count: int) -> Array:
    """Return the label sets [count, K] uint8 of the nodes from ``first`` on."""
    sets = np.zeros((count, int(pairs[1].max(initial=0)) + 1), np.uint8)
    begin, end = np.searchsorted(pairs[0], [first, first + count])
    sets[pairs[0, begin:end] - first, pairs[1, begin:end]] = 1
    return sets
