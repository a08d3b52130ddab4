"""Which index of a table is wanted, and what there is of one once it is open."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphsys.deploy.lookup import Metric
from graphsys.deploy.serving.hnsw import CONNECTIVITY, EXPANSION_ADD, NeighbourGraph
from graphsys.deploy.serving.settings import Storage
from graphsys.storage.embeddings import EmbeddingTable

_RECIPE = 1  # changes when the same settings would give another index


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which index is wanted, and where."""

    table: EmbeddingTable
    folder: Path
    metric: Metric
    storage: Storage
    threads: int

    @property
    def config(self) -> dict[str, Any]:
        """The settings that decide the index."""
        return {
            "metric": self.metric,
            "storage": self.storage,
            "connectivity": CONNECTIVITY,
            "expansion_add": EXPANSION_ADD,
            "recipe": _RECIPE,
        }

    @property
    def parents(self) -> dict[str, str]:
        """What the index is made from."""
        return {"table": self.table.fingerprint}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An index, open."""

    graph: NeighbourGraph | None  # None: exact searches only
    content: dict[str, Any]  # of the manifest
