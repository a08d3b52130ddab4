"""The class of each node, as the store behind a table knows it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import StaleArtefactError
from graphsys.core.types import NodeIds
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeClasses:
    """Classes of one node type."""

    names: tuple[str, ...]  # of class 0, 1, ...
    y: npt.NDArray[np.int64]  # [N], memory-mapped; -1: none

    def of(self, node: NodeIds) -> npt.NDArray[np.int32]:
        """Return the classes [Q] of dense ids [Q]; -1 where a node has none."""
        return self.y[node].astype(np.int32)


def open_classes(table: EmbeddingTable, store: Store) -> NodeClasses | None:
    """Return the classes of the table's nodes, checked; None where labels are no classes, or there are none.

    Raises:
        StaleArtefactError: The table was made from another store.
        CorruptError: The labels are not as they were written.
    """
    if table.manifest.parents.get("store") != store.fingerprint:
        raise StaleArtefactError(f"{table.path} was made from another store than {store.path} is now")
    info = store.node_type(table.node_type)
    if info.label_kind != "class":
        return None
    store.label_array(info.name).verify()
    names = store.class_names(info.name) or tuple(f"class {number}" for number in range(info.num_classes))
    return NodeClasses(names=names, y=store.labels(info.name))
