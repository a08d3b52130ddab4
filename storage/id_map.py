"""External ids (strings or sparse integers) to dense node ids and back.

Dense ids count rows of a node type; everything a user sees speaks external ids. A map is kept in one of three forms:
``identity`` (external id i is node i), ``integer`` or ``string``. Look-ups search an ordered array that may be a memory
map, so a map may be larger than memory.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from graphsys.core.errors import NodeIdError
from graphsys.core.types import NodeIds
from graphsys.storage.flat import FlatArray, FlatSpec, write_array

Kind = Literal["identity", "integer", "string"]
ExternalIds = Any  # [V] int64 array, string pyarrow array, or a sequence of int or str; pyarrow has no types


class IdMap:
    """A node type's ids; arrays may be memory maps.

    Args:
        kind: ``identity``, ``integer`` or ``string``.
        num_nodes: N.
        arrays: integer: ``ids`` [N] int64 by node, ``sorted_ids`` [N] int64 ascending, ``order`` [N] int64 node of each
            sorted id. string: ``bytes`` [*] uint8, ``offsets`` [N + 1] int64 by node, ``hashes`` [N] uint64 ascending
            xxh3_64 of the utf-8 bytes, ``order`` [N] int64 node of each hash.
    """

    def __init__(self, kind: Kind, num_nodes: int, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self.kind = kind
        self.num_nodes = num_nodes
        self._arrays = arrays

    @classmethod
    def identity(cls, num_nodes: int) -> "IdMap":
        """Return the map in which external id i is node i."""
        return cls("identity", num_nodes, {})

    @classmethod
    def from_ids(cls, ids: ExternalIds) -> "IdMap":
        """Build a map in memory; node i gets the i-th external id.

        Raises:
            NodeIdError: An id is given twice.
        """
        values = pa.array(ids) if not isinstance(ids, pa.Array | np.ndarray) else ids
        if isinstance(values, np.ndarray) or pa.types.is_integer(values.type):
            return cls._from_integers(np.asarray(values, np.int64))
        return cls._from_strings(values.cast(pa.large_string()))

    @classmethod
    def _from_integers(cls, ids: NodeIds) -> "IdMap":
        if np.array_equal(ids, np.arange(ids.shape[0])):
            return cls.identity(ids.shape[0])
        order = np.argsort(ids, kind="stable")
        sorted_ids = ids[order]
        _refuse_repeats(sorted_ids, order, lambda row: str(ids[row]))
        return cls("integer", ids.shape[0], {"ids": ids, "sorted_ids": sorted_ids, "order": order})

    @classmethod
    def _from_strings(cls, ids: pa.Array) -> "IdMap":
        text = ids.to_pylist()
        raw = [value.encode() for value in text]
        hashes = np.fromiter((xxhash.xxh3_64_intdigest(value) for value in raw), np.uint64, len(raw))
        order = np.argsort(hashes, kind="stable")
        offsets = np.zeros(len(raw) + 1, np.int64)
        np.cumsum([len(value) for value in raw], out=offsets[1:])
        seen: set[str] = set()
        for value in text:
            if value in seen:
                raise NodeIdError(f"node id '{value}' is given twice; every node needs an id of its own")
            seen.add(value)
        arrays: dict[str, npt.NDArray[Any]] = {
            "bytes": np.frombuffer(b"".join(raw), np.uint8),
            "offsets": offsets,
            "hashes": hashes[order],
            "order": order,
        }
        return cls("string", len(raw), arrays)

    def to_external(self, node: NodeIds) -> list[int] | list[str]:
        """Return the external ids of dense ids ``node`` [V]."""
        if self.kind == "identity":
            return [int(value) for value in node]
        if self.kind == "integer":
            return [int(value) for value in self._arrays["ids"][node]]
        return [self._text(int(value)) for value in node]

    def _text(self, node: int) -> str:
        offsets = self._arrays["offsets"]
        return self._arrays["bytes"][offsets[node] : offsets[node + 1]].tobytes().decode()

    def to_node(self, ids: ExternalIds) -> tuple[NodeIds, npt.NDArray[np.bool_]]:
        """Return dense ids [V] int64 and a found mask [V]; the id of what was not found is -1."""
        if self.kind == "string":
            values = ids.to_pylist() if isinstance(ids, pa.Array) else [str(value) for value in ids]
            node = np.fromiter((self._find_text(value) for value in values), np.int64, len(values))
            return node, node >= 0
        wanted = np.asarray(ids, np.int64)
        if self.kind == "identity":
            found = (wanted >= 0) & (wanted < self.num_nodes)
            return np.where(found, wanted, -1), found
        sorted_ids = self._arrays["sorted_ids"]
        place = np.minimum(np.searchsorted(sorted_ids, wanted), max(self.num_nodes - 1, 0))
        found = sorted_ids[place] == wanted if self.num_nodes else np.zeros(wanted.shape, np.bool_)
        return np.where(found, self._arrays["order"][place] if self.num_nodes else -1, -1), found

    def _find_text(self, text: str) -> int:
        raw = text.encode()
        digest = np.uint64(xxhash.xxh3_64_intdigest(raw))
        hashes, order = self._arrays["hashes"], self._arrays["order"]
        place = int(np.searchsorted(hashes, digest))
        # Different texts may share a hash: the bytes decide.
        while place < self.num_nodes and hashes[place] == digest:
            node = int(order[place])
            if self._text(node) == text:
                return node
            place += 1
        return -1

    def write(self, folder: Path, name: str) -> dict[str, FlatSpec]:
        """Write the map's arrays as flat arrays below ``folder / name``; return their manifest entries."""
        return {f"{name}/{key}": write_array(folder / name / key, array) for key, array in self._arrays.items()}

    @classmethod
    def read(cls, kind: Kind, num_nodes: int, folder: Path, name: str, arrays: dict[str, FlatSpec]) -> "IdMap":
        """Open a map that :meth:`write` wrote, memory-mapped."""
        mine = {path: spec for path, spec in arrays.items() if path.startswith(f"{name}/")}
        opened = {path.rpartition("/")[2]: FlatArray(folder / path, spec).memmap() for path, spec in mine.items()}
        return cls(kind, num_nodes, opened)


def _refuse_repeats(sorted_ids: NodeIds, order: NodeIds, text: Any) -> None:
    repeats = np.flatnonzero(sorted_ids[1:] == sorted_ids[:-1])
    if repeats.size:
        row = int(order[repeats[0] + 1])
        raise NodeIdError(f"node id {text(row)} is given twice; every node needs an id of its own")
