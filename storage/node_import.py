"""One node type on its way into a store: features, labels and split, checked and written chunk by chunk."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from graphsys.core.errors import InputError
from graphsys.core.progress import Task
from graphsys.core.types import Array, Features
from graphsys.storage.checks import as_float32
from graphsys.storage.external_ids import show_id
from graphsys.storage.flat import FlatSpec, FlatWriter
from graphsys.storage.labels import LabelWriter
from graphsys.storage.sources import ExternalIds, NodeChunk, NodeTable

IdSink = Callable[[ExternalIds | None, int], None]  # takes a chunk's ids (None: row numbers) and its rows


@dataclass(slots=True, kw_only=True)
class NodeResult:
    """What was written of one node type."""

    num_nodes: int = 0
    num_features: int = 0
    label_kind: str = "none"
    num_classes: int = 0
    split_counts: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, FlatSpec] = field(default_factory=dict)
    nbytes: int = 0  # of features, labels and splits


def import_nodes(
    folder: Path, table: NodeTable, ids: IdSink, *, normalize: Literal["none", "row"], work: Task
) -> NodeResult:
    """Write ``nodes/<type>/{x,y,split}`` below ``folder`` and hand every chunk's ids to ``ids``.

    Raises:
        InputError: A value cannot be used, or counts disagree; the message names the node.
    """
    writer = _NodeWriter(folder, table, normalize)
    try:
        for chunk in _checked(table, table.chunks()):
            ids(chunk.ids, chunk.num_rows)
            writer.append(chunk)
            work.advance(chunk.num_rows)
        return writer.close()
    except BaseException:
        writer.abort()
        raise


def _checked(table: NodeTable, chunks: Iterator[NodeChunk]) -> Iterator[NodeChunk]:
    """Yield the chunks, after their row counts and the presence of their fields were compared."""
    present: dict[str, bool] = {}
    num_rows = 0
    for chunk in chunks:
        for name in ("ids", "x", "y", "split"):
            values = getattr(chunk, name)
            if present.setdefault(name, values is not None) != (values is not None):
                raise InputError(f"node type '{table.node_type}': some chunks hold {name} and some do not")
            if values is not None and len(values) != chunk.num_rows:
                raise InputError(
                    f"node type '{table.node_type}': {name} has {len(values)} rows where there are "
                    f"{chunk.num_rows} nodes; row counts must agree"
                )
        num_rows += chunk.num_rows
        yield chunk
    if num_rows == 0:
        raise InputError(f"node type '{table.node_type}' has no rows; a graph needs nodes")
    if table.num_nodes is not None and table.num_nodes != num_rows:
        raise InputError(
            f"node type '{table.node_type}' has {num_rows} rows, but {table.num_nodes} nodes were announced"
        )


class _NodeWriter:
    """Writers of one node type's arrays; each is opened by the first chunk that needs it."""

    def __init__(self, folder: Path, table: NodeTable, normalize: str) -> None:
        self._folder = folder
        self._table = table
        self._normalize = normalize
        self._base = f"nodes/{table.node_type}"
        self._writers: dict[str, FlatWriter] = {}
        self._labels = LabelWriter(folder / self._base / "y", table.node_type)
        self._split_counts = np.zeros(4, np.int64)
        self._ids: ExternalIds | None = None  # of the chunk at hand, for messages
        self._result = NodeResult()

    def append(self, chunk: NodeChunk) -> None:
        self._ids = chunk.ids
        if chunk.x is not None:
            self._append_features(chunk.x)
        split = None if chunk.split is None else self._append_split(chunk.split)
        if chunk.y is not None:
            self._labels.append(chunk.y, split, self._name)
        elif split is not None and split.any():
            raise InputError(
                f"node type '{self._table.node_type}' has splits but no labels; give labels, or leave the splits out"
            )
        self._result.num_nodes += chunk.num_rows

    def _name(self, row: int) -> str:
        """How messages name row ``row`` of the chunk at hand."""
        return f"node {self._result.num_nodes + row if self._ids is None else show_id(self._ids[row])}"

    def _append_features(self, x: Array) -> None:
        if x.ndim != 2 or x.shape[1] == 0:
            raise InputError(
                f"node type '{self._table.node_type}': features have shape {x.shape}; expected [nodes, columns]"
            )
        known = self._result.num_features
        if known and known != x.shape[1]:
            raise InputError(f"{self._name(0)} has {x.shape[1]} features where others have {known}")
        self._result.num_features = x.shape[1]
        features = as_float32(x, self._feature_place)
        self._writer("x", np.float32, (x.shape[1],)).append(
            _normalized(features) if self._normalize == "row" else features
        )

    def _feature_place(self, row: int, column: int) -> str:
        names = self._table.feature_names
        shown = f"'{names[column]}'" if len(names) > column else str(column)
        return f"feature {shown} of {self._name(row)}"

    def _append_split(self, split: Array) -> Array:
        if split.shape[0] and int(split.max()) > 3:
            row = int(np.flatnonzero(split > 3)[0])
            raise InputError(f"the split of {self._name(row)} is {split[row]}; expected 0 to 3")
        self._writer("split", np.uint8, ()).append(split)
        self._split_counts += np.bincount(split, minlength=4)
        return split

    def _writer(self, name: str, dtype: type, row_shape: tuple[int, ...]) -> FlatWriter:
        if name not in self._writers:
            self._writers[name] = FlatWriter(self._folder / self._base / name, dtype, row_shape)
        return self._writers[name]

    def close(self) -> NodeResult:
        result = self._result
        result.arrays = {f"{self._base}/{name}": writer.close() for name, writer in self._writers.items()}
        labels = self._labels.close(result.num_nodes)
        if labels is not None:
            result.arrays[f"{self._base}/y"] = labels
        result.label_kind, result.num_classes = self._labels.kind, self._labels.num_classes
        if result.label_kind == "class":
            result.num_classes = max(result.num_classes, len(self._table.classes))
        if "split" in self._writers:
            result.split_counts = dict(zip(("train", "val", "test"), map(int, self._split_counts[1:]), strict=True))
        result.nbytes = sum(spec.nbytes for spec in result.arrays.values())
        return result

    def abort(self) -> None:
        for writer in self._writers.values():
            writer.abort()
        self._labels.abort()


def _normalized(features: Features) -> Features:
    """Return rows divided by the sum of their absolute values; rows of zeros stay zeros."""
    total = np.abs(features).sum(axis=1, dtype=np.float64)
    total[total == 0] = 1
    scaled: Features = (features / total[:, None]).astype(np.float32)
    return scaled
