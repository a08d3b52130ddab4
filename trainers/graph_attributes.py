"""Attributes of nodes and edges, under any of the names that PyG and DGL data sets give them, as tables to import."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from graphsys.core.errors import InputError
from graphsys.core.types import SPLITS, Array, EdgeType, edge_type_key
from graphsys.storage.memory_source import edge_table, node_table
from graphsys.storage.sources import EdgeTable, GraphSource, NodeTable

# The usual name first.
_X = ("x", "feat", "features")
_Y = ("y", "label", "labels")
_TIME = ("time", "timestamp", "edge_time", "t")
_WEIGHT = ("edge_weight", "weight", "w")
_EDGE_ATTR = ("edge_attr", "feat", "efeat")


class AttributeReader:
    """Turns attributes into tables, and remembers those that no table takes.

    Args:
        split_index: Which column of two-dimensional masks [N, K] to take.
    """

    def __init__(self, split_index: int) -> None:
        self._split_index = split_index
        self._ignored: list[str] = []

    def source(self, nodes: Iterable[NodeTable], edges: Iterable[EdgeTable], description: str) -> GraphSource:
        """Return the whole raw graph."""
        return GraphSource(
            nodes=tuple(nodes),
            edges=tuple(edges),
            files=(),
            description=description,
            ignored=tuple(self._ignored),
            config={"split_index": self._split_index},
        )

    def nodes(self, node_type: str, num_nodes: int | None, values: Mapping[str, Any]) -> NodeTable:
        """Return the table of one node type.

        Raises:
            InputError: An attribute has an impossible shape or type, or the number of nodes is unknown.
        """
        if num_nodes is None:
            raise InputError(f"node type '{node_type}' has neither features nor num_nodes; set num_nodes")
        taken = _Taken(f"node type '{node_type}'", num_nodes, values)
        x, y = taken.first(_X), taken.first(_Y)
        split = self._split(taken)
        self._ignore(taken)
        return node_table(
            node_type,
            num_nodes,
            x=_matrix(x) if x is not None else None,
            y=_labels(y) if y is not None else None,
            split=split,
        )

    def edges(self, edge_type: EdgeType, ends: tuple[Tensor, Tensor], values: Mapping[str, Any]) -> EdgeTable:
        """Return the table of one edge type.

        Args:
            ends: Row numbers [E] of the sources, and of the destinations.

        Raises:
            InputError: As :meth:`nodes`.
        """
        owner = f"edge type '{edge_type_key(edge_type)}'"
        src, dst = (_array(end, f"{owner}: edge_index") for end in ends)
        taken = _Taken(owner, src.shape[0], values)
        timestamp, weight, attr = taken.first(_TIME), taken.first(_WEIGHT), taken.first(_EDGE_ATTR)
        self._ignore(taken)
        return edge_table(
            edge_type,
            src,
            dst,
            timestamp=timestamp.reshape(-1) if timestamp is not None else None,
            weight=weight.reshape(-1) if weight is not None else None,
            edge_attr=_matrix(attr) if attr is not None else None,
        )

    def _ignore(self, taken: "_Taken") -> None:
        self._ignored += [f"{taken.owner}: {name} (the store has no place for it)" for name in taken.rest()]

    def _split(self, taken: "_Taken") -> Array | None:
        masks = {name: mask for name in SPLITS if (mask := taken.first((f"{name}_mask",))) is not None}
        if not masks:
            return None
        split = np.zeros(taken.num_rows, np.uint8)
        for name, mask in masks.items():
            chosen = self._chosen(mask, f"{taken.owner}: {name}_mask")
            both = np.flatnonzero((split != 0) & chosen)
            if both.size:
                other = SPLITS[int(split[both[0]]) - 1]
                raise InputError(
                    f"{taken.owner}: node {both[0]} is in {other}_mask and in {name}_mask; take it out of one of them"
                )
            split[chosen] = 1 + SPLITS.index(name)
        return split

    def _chosen(self, mask: Array, where: str) -> Array:
        if mask.ndim == 2:
            if not 0 <= self._split_index < mask.shape[1]:
                raise InputError(f"{where} holds {mask.shape[1]} splits, split_index is {self._split_index}")
            mask = mask[:, self._split_index]
        return mask.astype(np.bool_)


class _Taken:
    """Attributes of one node or edge type, each to be taken once."""

    def __init__(self, owner: str, num_rows: int, values: Mapping[str, Any]) -> None:
        self.owner = owner
        self.num_rows = num_rows
        self._values = {name: value for name, value in values.items() if value is not None}

    def first(self, names: tuple[str, ...]) -> Array | None:
        """Take the first of ``names`` that is there, as an array with one row per node or edge."""
        name = next((name for name in names if name in self._values), None)
        if name is None:
            return None
        array = _array(self._values.pop(name), f"{self.owner}: {name}")
        if array.ndim == 0 or array.shape[0] != self.num_rows:
            raise InputError(f"{self.owner}: {name} has shape {array.shape}; expected {self.num_rows} rows")
        return array

    def rest(self) -> list[str]:
        """Return the names of what was not taken."""
        return list(self._values)


def _array(value: Any, where: str) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, Tensor):
        raise InputError(f"{where} is of type {type(value).__name__}; expected a tensor or an array")
    dense = value.detach().cpu() if value.layout == torch.strided else value.detach().cpu().to_dense()
    # numpy has no bfloat16; every one of its values is a float32.
    array: Array = (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()
    return array


def _matrix(values: Array) -> Array:
    return values.reshape(values.shape[0], int(np.prod(values.shape[1:], dtype=np.int64)))


def _labels(y: Array) -> Array:
    """Return labels so that their type says their kind; sets of labels often come as floats 0.0 and 1.0."""
    sets = y.ndim == 2 and y.shape[1] > 1
    if y.dtype == np.bool_ or (sets and y.dtype.kind == "f" and bool(((y == 0) | (y == 1)).all())):
        return y.astype(np.uint8)
    return y
