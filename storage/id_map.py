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

from graphsys.core.errors import NodeIdError
from graphsys.core.types import NodeIds
from graphsys.storage.external_ids import (
    Hashes,
    Text,
    hash_texts,
    is_text,
    plain_ids,
    same_text,
    show_id,
    text_buffers,
)
from graphsys.storage.flat import FlatArray, FlatSpec, write_array
from graphsys.storage.jit import njit

Kind = Literal["identity", "integer", "string"]
ExternalIds = Any  # [V] int64 array, string pyarrow array, or a sequence of int or str; pyarrow has no types
Arrays = dict[str, npt.NDArray[Any]]

_INT64 = np.iinfo(np.int64)
_MOST_DIGITS = 19  # of an int64


class IdMap:
    """A node type's ids; arrays may be memory maps.

    Args:
        kind: ``identity``, ``integer`` or ``string``.
        num_nodes: N.
        arrays: integer: ``ids`` [N] int64 by node; unless they ascend, ``sorted_ids`` [N] int64 ascending and ``order``
            [N] int64, the node of each sorted id. string: ``bytes`` [*] uint8 and ``offsets`` [N + 1] int64 by node,
            ``hashes`` [N] uint64 ascending; unless nodes are in that order, ``order`` [N] int64, the node of each hash.
    """

    def __init__(self, kind: Kind, num_nodes: int, arrays: Arrays) -> None:
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
            InputError: An id is missing, or neither an integer nor a string.
        """
        plain = plain_ids(ids)
        return cls._from_strings(plain) if is_text(plain) else cls._from_integers(plain)

    @classmethod
    def _from_integers(cls, ids: NodeIds) -> "IdMap":
        if np.array_equal(ids, np.arange(ids.shape[0])):
            return cls.identity(ids.shape[0])
        if (ids[1:] > ids[:-1]).all():
            return cls("integer", ids.shape[0], {"ids": ids})
        order = np.argsort(ids, kind="stable")
        sorted_ids = ids[order]
        repeats = np.flatnonzero(sorted_ids[1:] == sorted_ids[:-1])
        if repeats.size:
            raise given_twice(int(sorted_ids[repeats[0]]))
        return cls("integer", ids.shape[0], {"ids": ids, "sorted_ids": sorted_ids, "order": order})

    @classmethod
    def _from_strings(cls, ids: Any) -> "IdMap":
        bounds, text = text_buffers(ids)
        hashes = hash_texts(bounds, text)
        order = np.argsort(hashes, kind="stable")
        arrays: Arrays = {
            "bytes": text[bounds[0] : bounds[-1]],
            "offsets": bounds - bounds[0],
            "hashes": hashes[order],
            "order": order,
        }
        refuse_equal_texts(arrays["hashes"], order, arrays["offsets"], arrays["bytes"])
        return cls("string", len(ids), arrays)

    def to_external(self, node: NodeIds) -> list[int] | list[str]:
        """Return the external ids of dense ids ``node`` [V]."""
        if self.kind == "identity":
            return [int(value) for value in node]
        if self.kind == "integer":
            return [int(value) for value in self._arrays["ids"][node]]
        return [self._text(int(value)) for value in node]

    @property
    def arrow_type(self) -> pa.DataType:
        """Type of the external ids in Arrow."""
        return pa.large_string() if self.kind == "string" else pa.int64()

    def column(self, start: int, stop: int) -> pa.Array:
        """Return the external ids of nodes [start, stop) as an Arrow array in the map's own memory."""
        if self.kind == "identity":
            return pa.array(np.arange(start, stop, dtype=np.int64))
        if self.kind == "integer":
            return pa.array(self._arrays["ids"][start:stop])
        offsets, text = self._arrays["offsets"][start : stop + 1], self._arrays["bytes"]
        return pa.LargeStringArray.from_buffers(stop - start, pa.py_buffer(offsets), pa.py_buffer(text))

    def _text(self, node: int) -> str:
        offsets = self._arrays["offsets"]
        return self._arrays["bytes"][offsets[node] : offsets[node + 1]].tobytes().decode()

    def to_node(self, ids: ExternalIds) -> tuple[NodeIds, npt.NDArray[np.bool_]]:
        """Return dense ids [V] int64 and a found mask [V]; the id of what was not found is -1.

        Cost:
            O(V log N); queries are put in order first, so that a map on disk is walked through once.
        """
        if self.kind == "string":
            node = self._find_texts(_as_texts(ids))
        else:
            wanted, possible = _as_integers(ids)
            if self.kind == "identity":
                node = np.where((wanted >= 0) & (wanted < self.num_nodes), wanted, -1)
            else:
                node = self._find_integers(wanted)
            node[~possible] = -1
        return node, node >= 0

    def _find_integers(self, ids: NodeIds) -> NodeIds:
        sorted_ids = self._arrays.get("sorted_ids", self._arrays["ids"])
        node = np.full(ids.shape[0], -1, np.int64)
        if self.num_nodes == 0:
            return node
        turn = np.argsort(ids)
        place = np.minimum(np.searchsorted(sorted_ids, ids[turn]), self.num_nodes - 1)
        found = sorted_ids[place] == ids[turn]
        order = self._arrays.get("order")
        node[turn[found]] = place[found] if order is None else order[place[found]]
        return node

    def _find_texts(self, ids: ExternalIds) -> NodeIds:
        texts = plain_ids(ids)
        node = np.full(len(texts), -1, np.int64)
        if len(texts) == 0 or self.num_nodes == 0:
            return node
        bounds, text = text_buffers(texts)
        wanted = hash_texts(bounds, text)
        turn = np.argsort(wanted)
        place = np.searchsorted(self._arrays["hashes"], wanted[turn])
        order = self._arrays.get("order", np.empty(0, np.int64))
        _match(
            turn, place, wanted, bounds, text,
            self._arrays["hashes"], order, self._arrays["offsets"], self._arrays["bytes"], node,
        )  # fmt: skip
        return node

    def write(self, folder: Path, name: str) -> dict[str, FlatSpec]:
        """Write the map's arrays as flat arrays below ``folder / name``; return their manifest entries."""
        return {f"{name}/{key}": write_array(folder / name / key, array) for key, array in self._arrays.items()}

    @classmethod
    def read(cls, kind: Kind, num_nodes: int, folder: Path, name: str, arrays: dict[str, FlatSpec]) -> "IdMap":
        """Open a map that :meth:`write` wrote, memory-mapped."""
        mine = {path: spec for path, spec in arrays.items() if path.startswith(f"{name}/")}
        opened = {path.rpartition("/")[2]: FlatArray(folder / path, spec).memmap() for path, spec in mine.items()}
        return cls(kind, num_nodes, opened)


def given_twice(shown: int | str) -> NodeIdError:
    """Return the error of an id that two nodes have."""
    return NodeIdError(f"node id {show_id(shown)} is given twice; every node needs an id of its own")


def refuse_equal_texts(hashes: Hashes, order: NodeIds, offsets: NodeIds, text: Text) -> None:
    """Raise NodeIdError when two nodes have the same string.

    Args:
        hashes: [C] ascending; strings with one hash all lie in it.
        order: [C] node of each hash.
        offsets: [N + 1] of all nodes' strings in ``text``.
    """
    node = _first_equal(hashes, order, offsets, text)
    if node >= 0:
        raise given_twice(text[offsets[node] : offsets[node + 1]].tobytes().decode())


def _as_texts(ids: ExternalIds) -> ExternalIds:
    """Return ids [V] as strings: where names are text, the integer 17 asks for "17"."""
    if not isinstance(ids, pa.Array):
        return [str(value) for value in ids]
    return ids.cast(pa.large_string()) if pa.types.is_integer(ids.type) else ids


def _as_integers(ids: ExternalIds) -> tuple[NodeIds, npt.NDArray[np.bool_]]:
    """Return ids [V] as integers, and which of them are: a string such as "17" is one, "x17" is none."""
    plain = plain_ids(ids)
    if not is_text(plain):
        return plain, np.ones(plain.shape[0], np.bool_)
    values = [_as_integer(text) for text in plain.to_pylist()]
    wanted = np.array([value or 0 for value in values], np.int64)
    return wanted, np.array([value is not None for value in values], np.bool_)


def _as_integer(text: str) -> int | None:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > _MOST_DIGITS:
        return None
    value = int(text)
    return value if _INT64.min <= value <= _INT64.max else None


@njit
def _first_equal(hashes: Hashes, order: NodeIds, offsets: NodeIds, text: Text) -> int:
    start = 0
    for row in range(1, hashes.shape[0]):
        if hashes[row] != hashes[start]:
            start = row
        for earlier in range(start, row):
            if same_text(offsets, text, order[earlier], offsets, text, order[row]):
                return int(order[row])
    return -1


@njit
def _match(
    turn: NodeIds,
    place: NodeIds,
    wanted: Hashes,
    bounds: NodeIds,
    queries: Text,
    hashes: Hashes,
    order: NodeIds,
    offsets: NodeIds,
    text: Text,
    node: NodeIds,
) -> None:
    """Fill ``node`` [V] where a string with the same hash has the same bytes; an empty ``order`` is 0, 1, 2, ..."""
    for position in range(turn.shape[0]):
        query, row = turn[position], place[position]
        while row < hashes.shape[0] and hashes[row] == wanted[query]:
            candidate = order[row] if order.shape[0] else row
            if same_text(bounds, queries, query, offsets, text, candidate):
                node[query] = candidate
                break
            row += 1
