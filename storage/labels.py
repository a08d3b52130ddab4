"""Labels of one node type: what kind they are, whether each is possible, and how they lie on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from graphsys.core.errors import InputError
from graphsys.core.types import Array
from graphsys.storage.checks import as_float32, as_int64
from graphsys.storage.flat import FlatSpec, FlatWriter

Kind = Literal["none", "class", "multilabel", "value"]
Name = Callable[[int], str]  # row of the chunk at hand -> how a message names its node

_DTYPES = {"class": np.int64, "multilabel": np.uint8, "value": np.float32}
# A class id is an index into a model's outputs: one far above the number of nodes is a mistake, such as a raw code.
_ALWAYS_POSSIBLE_CLASSES = 1 << 16


class LabelWriter:
    """Takes labels chunk by chunk; the first chunk decides what kind they are.

    class: [C] whole numbers, -1 for none. multilabel: [C, K] whole numbers 0 and 1. value: [C] or [C, K] floats, NaN
    for none. A node of a split needs a label.
    """

    def __init__(self, folder: Path, node_type: str) -> None:
        self.kind: Kind = "none"
        self.num_classes = 0
        self._folder = folder
        self._node_type = node_type
        self._writer: FlatWriter | None = None
        self._largest = ""  # name of the node with the largest class id

    def append(self, y: Array, split: Array | None, name: Name) -> None:
        """Append labels ``y`` of one chunk.

        Args:
            split: [C] uint8, 0 for nodes outside the splits.

        Raises:
            InputError: A label is impossible, or a node of a split has none.
        """
        values = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        kind = self._kind_of(values)
        if self.kind not in ("none", kind):
            raise InputError(
                f"node type '{self._node_type}': labels are {self.kind} at first and {kind} from {name(0)}"
            )
        self.kind = kind
        if kind == "class":
            self._append_classes(values, split, name)
        elif kind == "multilabel":
            self._append_sets(values, name)
        else:
            self._append_values(values, split, name)

    def _kind_of(self, y: Array) -> Kind:
        if y.ndim not in (1, 2) or y.dtype.kind not in "iubf" or (y.ndim == 2 and y.shape[1] == 0):
            raise InputError(
                f"node type '{self._node_type}': labels have shape {y.shape} and type {y.dtype}; expected [nodes] "
                f"whole numbers (classes), [nodes, labels] of 0 and 1, or floating-point values"
            )
        if y.dtype.kind == "f":
            return "value"
        return "class" if y.ndim == 1 else "multilabel"

    def _append_classes(self, y: Array, split: Array | None, name: Name) -> None:
        classes = as_int64(y, lambda row, _: f"the label of {name(row)}")
        bad = np.flatnonzero(classes < -1)
        if bad.size:
            raise InputError(
                f"the label of {name(int(bad[0]))} is {classes[bad[0]]}; expected a class id from 0 up, or -1 for none"
            )
        self._require_labels(classes == -1, split, name)
        if classes.size and int(classes.max()) >= self.num_classes:
            self.num_classes = int(classes.max()) + 1
            self._largest = name(int(classes.argmax()))
        self._write(classes)

    def _append_sets(self, y: Array, name: Name) -> None:
        bad = np.argwhere((y != 0) & (y != 1))
        if bad.size:
            row, column = map(int, bad[0])
            raise InputError(f"label {column} of {name(row)} is {y[row, column]}; expected 0 or 1 for each label")
        self._write(y)

    def _append_values(self, y: Array, split: Array | None, name: Name) -> None:
        missing = np.isnan(y)
        self._require_labels(missing if y.ndim == 1 else missing.any(axis=1), split, name)
        known = as_float32(np.where(missing, 0, y), lambda row, column: f"label {column} of {name(row)}")
        self._write(np.where(missing, np.float32(np.nan), known))

    @staticmethod
    def _require_labels(missing: Any, split: Array | None, name: Name) -> None:
        bad = np.flatnonzero(missing & (split != 0)) if split is not None else np.empty(0, np.int64)
        if bad.size:
            raise InputError(f"{name(int(bad[0]))} is in a split but has no label; label it, or take it out")

    def _write(self, values: Array) -> None:
        shape = values.shape[1:]
        if self._writer is None:
            self._writer = FlatWriter(self._folder, _DTYPES[self.kind], shape)
            self.num_classes = self.num_classes if self.kind == "class" else int(np.prod(shape, dtype=np.int64))
        if shape != self._writer.row_shape:
            raise InputError(
                f"node type '{self._node_type}': labels have shape {shape} per node where others have "
                f"{self._writer.row_shape}"
            )
        self._writer.append(values)

    def close(self, num_nodes: int) -> FlatSpec | None:
        """Finish the array; return its manifest entry, None without labels.

        Raises:
            InputError: A class id is far larger than the number of nodes.
        """
        limit = max(num_nodes, _ALWAYS_POSSIBLE_CLASSES)
        if self.kind == "class" and self.num_classes > limit:
            raise InputError(
                f"the label of {self._largest} is {self.num_classes - 1}, out of range for {num_nodes} nodes; number "
                f"the classes 0, 1, 2, ..."
            )
        return None if self._writer is None else self._writer.close()

    def abort(self) -> None:
        """Close the file; the folder is left to whoever made it."""
        if self._writer is not None:
            self._writer.abort()
