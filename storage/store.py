"""A store: one graph on disk, opened for reading. Layout: ``docs/format/store.md``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import ArtefactError, ConfigError
from graphsys.core.types import SPLITS, EdgeType, NodeIds, Topology, edge_type_key, parse_edge_type
from graphsys.storage.flat import FlatArray
from graphsys.storage.id_map import IdMap
from graphsys.storage.manifest import Manifest, read_manifest

LabelKind = Literal["none", "class", "multilabel", "value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTypeInfo:
    """What the manifest says of one node type."""

    name: str
    num_nodes: int
    num_features: int  # D; 0 when the type has no features
    label_kind: LabelKind
    num_classes: int  # classes, labels or targets; 0 without labels
    id_kind: Literal["identity", "integer", "string"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTopology(Topology):
    """In-edges as memory maps, and the arrays behind them for other reads."""

    indptr_array: FlatArray
    indices_array: FlatArray
    weight_array: FlatArray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of ``indptr`` and ``indices`` together."""
        return self.indptr.nbytes + self.indices.nbytes

    def read_nbytes(self, *, weighted: bool) -> int:
        """Return the bytes of all that draws look at."""
        return sum(array.spec.nbytes for array in self._drawn_from(weighted=weighted))

    def prefetch(self, *, weighted: bool) -> None:
        """Have the kernel read ahead all that draws look at.

        Raises:
            DiskError: A file cannot be opened.
        """
        for array in self._drawn_from(weighted=weighted):
            array.prefetch()

    def _drawn_from(self, *, weighted: bool) -> list[FlatArray]:
        weights = [self.weight_array] if weighted and self.weight_array is not None else []
        return [self.indptr_array, self.indices_array, *weights]


class Store:
    """A graph on disk. Arrays are opened when asked for; nothing is read before."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self.fingerprint = manifest.fingerprint
        self.node_types = {
            name: NodeTypeInfo(name=name, **info) for name, info in manifest.content["node_types"].items()
        }
        self.edge_types: dict[EdgeType, dict[str, Any]] = {
            parse_edge_type(key): info for key, info in manifest.content["edge_types"].items()
        }

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open the store at ``path``.

        Raises:
            ArtefactError: It is not a store, or one of a newer format.
            CorruptError: Its manifest changed.
        """
        return cls(path, read_manifest(path, "store"))

    def node_type(self, name: str | None = None) -> NodeTypeInfo:
        """Return the named node type, or the only one.

        Raises:
            ConfigError: The type is unknown, or none was named and there are several.
        """
        known = ", ".join(self.node_types)
        if name is None:
            if len(self.node_types) != 1:
                raise ConfigError(f"{self.path} has the node types {known}; name one with task.node_type")
            return next(iter(self.node_types.values()))
        if name not in self.node_types:
            raise ConfigError(f"{self.path} has no node type '{name}'; it has {known}")
        return self.node_types[name]

    def edge_type_within(self, node_type: str) -> EdgeType:
        """Return the one edge type that joins ``node_type`` to itself.

        Raises:
            ConfigError: There is none, or several.
        """
        within = [key for key in self.edge_types if key[0] == node_type and key[2] == node_type]
        if len(within) != 1:
            found = ", ".join(edge_type_key(key) for key in within) or "none"
            raise ConfigError(
                f"{self.path}: training needs one edge type from '{node_type}' to '{node_type}'; it has {found}"
            )
        return within[0]

    def array(self, name: str) -> FlatArray:
        """Open an array by its path below the store, such as ``nodes/paper/x``.

        Raises:
            ArtefactError: The store has no such array.
        """
        if name not in self.manifest.arrays:
            raise ArtefactError(f"{self.path} has no array '{name}'; it has {', '.join(self.manifest.arrays)}")
        return FlatArray(self.path / name, self.manifest.arrays[name])

    def has(self, name: str) -> bool:
        """Whether the store holds the array ``name``."""
        return name in self.manifest.arrays

    def features(self, node_type: str) -> FlatArray:
        """Open the features [N, D] float32 of a node type.

        Raises:
            ArtefactError: It has none.
        """
        if not self.has(f"nodes/{node_type}/x"):
            raise ArtefactError(f"{self.path}: node type '{node_type}' has no features; import it with features")
        return self.array(f"nodes/{node_type}/x")

    def labels(self, node_type: str) -> npt.NDArray[Any]:
        """Return y, memory-mapped: class [N] int64 (-1: none), multilabel [N, C] uint8, value [N] or [N, C] float32."""
        return self.label_array(node_type).memmap()

    def label_array(self, node_type: str) -> FlatArray:
        """Open y of a node type; see :meth:`labels`.

        Raises:
            ArtefactError: It has none.
        """
        if not self.has(f"nodes/{node_type}/y"):
            raise ArtefactError(f"{self.path}: node type '{node_type}' has no labels; import it with labels")
        return self.array(f"nodes/{node_type}/y")

    def class_names(self, node_type: str) -> tuple[str, ...]:
        """Return the names of class 0, 1, ... where labels were strings; empty where they were numbers."""
        return tuple(self.manifest.content.get("classes", {}).get(node_type, ()))

    def split(self, node_type: str, name: str) -> NodeIds:
        """Return the ascending node ids [*] of split ``name`` (train, val or test); empty when there is none."""
        codes = self.split_codes(node_type)
        if codes is None:
            return np.empty(0, np.int64)
        # One byte per node: reading it whole costs N bytes for a moment.
        return np.flatnonzero(codes.read() == 1 + SPLITS.index(name)).astype(np.int64)

    def split_codes(self, node_type: str) -> FlatArray | None:
        """Open the splits [N] uint8 of a node type: 0 for none, else 1 + the place in ``SPLITS``; None without any."""
        name = f"nodes/{node_type}/split"
        return self.array(name) if self.has(name) else None

    def id_map(self, node_type: str) -> IdMap:
        """Open the id map of a node type, memory-mapped."""
        info = self.node_types[node_type]
        return IdMap.read(info.id_kind, info.num_nodes, self.path, f"id_map/{node_type}", self.manifest.arrays)

    def id_arrays(self, node_type: str) -> tuple[str, ...]:
        """Return the names of the arrays that :meth:`id_map` opens; none where an external id is the row's number."""
        return tuple(name for name in self.manifest.arrays if name.startswith(f"id_map/{node_type}/"))

    def topology(self, edge_type: EdgeType, *, in_memory: bool = False) -> Topology:
        """Return the in-edges of an edge type as memory maps.

        Args:
            in_memory: Give private copies of ``indptr`` and ``indices``, :meth:`topology_nbytes` in all; what is looked
                at more rarely stays mapped.
        """
        arrays = {name.rpartition("/")[2]: self.array(name) for name in self.topology_arrays(edge_type)}
        num_src_nodes = self.node_types[edge_type[0]].num_nodes
        if in_memory:
            held = {name: array.read() for name, array in arrays.items() if name in ("indptr", "indices")}
            mapped = {name: array.memmap() for name, array in arrays.items() if name not in held}
            return Topology(num_src_nodes=num_src_nodes, **held, **mapped)
        maps = {name: array.memmap() for name, array in arrays.items()}
        return StoredTopology(
            num_src_nodes=num_src_nodes, indptr_array=arrays["indptr"], indices_array=arrays["indices"],
            weight_array=arrays.get("weight"), **maps,
        )  # fmt: skip

    def topology_arrays(self, edge_type: EdgeType) -> tuple[str, ...]:
        """Return the names of the arrays that :meth:`topology` opens."""
        base = f"topology/{edge_type_key(edge_type)}"
        optional = [f"{base}/{name}" for name in ("edge_id", "timestamp", "weight")]
        return (f"{base}/indptr", f"{base}/indices", *filter(self.has, optional))

    def topology_nbytes(self, edge_type: EdgeType) -> int:
        """Bytes of ``indptr`` and ``indices`` together."""
        base = f"topology/{edge_type_key(edge_type)}"
        return sum(self.manifest.arrays[f"{base}/{name}"].nbytes for name in ("indptr", "indices"))
