"""Gives every node its dense id, from a table or from the edges alone, and writes the id map, whatever its size."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from graphsys.core.errors import InputError
from graphsys.core.types import NodeIds
from graphsys.storage.distinct_integers import distinct_integers
from graphsys.storage.distinct_texts import distinct_texts
from graphsys.storage.external_ids import Hashes, hash_texts, is_text, plain_ids, text_buffers
from graphsys.storage.external_sort import ExternalSort, Records, SortBudget
from graphsys.storage.files import remove_path
from graphsys.storage.flat import FlatArray, FlatSpec, FlatWriter
from graphsys.storage.id_map import Kind, given_twice, refuse_equal_texts
from graphsys.storage.id_space import NodeIdSpace
from graphsys.storage.sources import ExternalIds

_SIGN = np.uint64(1 << 63)
_PIECE = 1 << 17  # ids that are read back at once


class TableIds:
    """Takes the ids of a node table chunk by chunk; node i gets the i-th id.

    Args:
        folder: The store being made.
        spill: Folder for temporary files; the caller removes it.
        memory: Bytes that ordering the ids may use.
    """

    def __init__(self, folder: Path, spill: Path, node_type: str, memory: int) -> None:
        self._folder, self._node_type = folder, node_type
        self._order = _Order(spill, memory)
        self._num_rows = 0
        self._writer: _Writer | None = None

    def add(self, ids: ExternalIds | None, num_rows: int) -> None:
        """Take the ids of the next ``num_rows`` nodes; None are row numbers.

        Raises:
            InputError: Some are integers and some are strings.
        """
        self._num_rows += num_rows
        if ids is None:
            return
        plain = plain_ids(ids)
        make = _TextIds if is_text(plain) else _IntegerIds
        if self._writer is None:
            self._writer = make(self._folder / f"id_map/{self._node_type}")
        if not isinstance(self._writer, make):
            raise InputError(f"node type '{self._node_type}': some ids are integers and some are strings")
        self._writer.add(plain)

    def close(self) -> NodeIdSpace:
        """Write what is missing of the map.

        Raises:
            NodeIdError: An id is given twice.
        """
        kind, specs = ("identity", {}) if self._writer is None else self._writer.close(self._order)
        return NodeIdSpace(
            node_type=self._node_type,
            kind=kind,
            num_nodes=self._num_rows,
            folder=self._folder,
            arrays={f"id_map/{self._node_type}/{name}": spec for name, spec in specs.items()},
        )

    def abort(self) -> None:
        """Close the files; the folder is left to whoever made it."""
        if self._writer is not None:
            self._writer.abort()


class _Order:
    """Sorts keys of nodes, inside a budget."""

    def __init__(self, spill: Path, memory: int) -> None:
        self._spill, self._memory = spill, memory

    def ascending(self, keys: Iterator[Hashes], num_nodes: int) -> Iterator[tuple[Hashes, NodeIds]]:
        """Yield (keys, nodes) in ascending order, block by block; equal keys lie in one block, nodes ascending.

        Args:
            keys: [C] uint64 of node 0, 1, 2, ...
        """
        self._spill.mkdir(parents=True, exist_ok=True)
        budget = SortBudget.within(self._memory, 2)
        sort = ExternalSort(self._spill, key_bounds=(1 << 64,), payload_words=1, budget=budget, num_records=num_nodes)
        try:
            first = 0
            for piece in keys:
                records: Records = np.empty((piece.shape[0], 2), np.uint64)
                records[:, 0] = piece
                records[:, 1] = np.arange(first, first + piece.shape[0])
                sort.add(records)
                first += piece.shape[0]
            for block in sort.blocks():
                yield block[:, 0], block[:, 1].view(np.int64)
        finally:
            sort.close()


class _Writer(Protocol):
    """Writes the ids of nodes, in the order of the nodes, then what looking them up needs."""

    def add(self, ids: Any) -> None:
        """Append plain ids."""

    def close(self, order: _Order) -> tuple[Kind, dict[str, FlatSpec]]:
        """Finish; return the kind of map and its arrays by name."""

    def abort(self) -> None:
        """Close the files."""


class _IntegerIds:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = FlatWriter(folder / "ids", np.int64)
        self._dense = True  # so far id i is node i
        self._ascending = True
        self._last: int | None = None

    def add(self, ids: NodeIds) -> None:
        if ids.shape[0] == 0:
            return
        first = self._ids.num_rows
        self._dense = self._dense and bool((ids == np.arange(first, first + ids.shape[0])).all())
        follows = self._last is None or self._last < ids[0]
        self._ascending = self._ascending and follows and bool((ids[1:] > ids[:-1]).all())
        self._last = int(ids[-1])
        self._ids.append(ids)

    @property
    def num_rows(self) -> int:
        return self._ids.num_rows

    def close(self, order: _Order) -> tuple[Kind, dict[str, FlatSpec]]:
        specs = {"ids": self._ids.close()}
        if self._dense:
            remove_path(self._folder)
            return "identity", {}
        return "integer", specs if self._ascending else specs | self._write_order(specs["ids"], order)

    def _write_order(self, spec: FlatSpec, order: _Order) -> dict[str, FlatSpec]:
        written = FlatArray(self._folder / "ids", spec)
        keys = (ids.view(np.uint64) ^ _SIGN for _, ids in written.blocks(_PIECE))  # unsigned order is signed order
        writers = {name: FlatWriter(self._folder / name, np.int64) for name in ("sorted_ids", "order")}
        try:
            for key, node in order.ascending(keys, spec.shape[0]):
                repeats = np.flatnonzero(key[1:] == key[:-1])
                sorted_ids = (key ^ _SIGN).view(np.int64)
                if repeats.size:
                    raise given_twice(int(sorted_ids[repeats[0]]))
                writers["sorted_ids"].append(sorted_ids)
                writers["order"].append(node)
            return {name: writer.close() for name, writer in writers.items()}
        except BaseException:
            for writer in writers.values():
                writer.abort()
            raise

    def abort(self) -> None:
        self._ids.abort()


class _TextIds:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._text = FlatWriter(folder / "bytes", np.uint8)
        self._offsets = FlatWriter(folder / "offsets", np.int64)
        self._offsets.append(np.zeros(1, np.int64))

    def add(self, ids: Any) -> None:
        bounds, text = text_buffers(ids)
        self._offsets.append(bounds[1:] - bounds[0] + self._text.num_rows)
        self._text.append(text[bounds[0] : bounds[-1]])

    def close(self, order: _Order) -> tuple[Kind, dict[str, FlatSpec]]:
        specs = self.close_texts()
        arrays = {name: FlatArray(self._folder / name, spec) for name, spec in specs.items()}
        offsets, text = arrays["offsets"].memmap(), arrays["bytes"].memmap()
        writers = {"hashes": FlatWriter(self._folder / "hashes", np.uint64)}
        writers["order"] = FlatWriter(self._folder / "order", np.int64)
        num_nodes = offsets.shape[0] - 1
        try:
            for hashes, node in order.ascending(_hash_pieces(arrays, num_nodes), num_nodes):
                refuse_equal_texts(hashes, node, offsets, text)
                writers["hashes"].append(hashes)
                writers["order"].append(node)
            return "string", specs | {name: writer.close() for name, writer in writers.items()}
        except BaseException:
            for writer in writers.values():
                writer.abort()
            raise

    def close_texts(self) -> dict[str, FlatSpec]:
        """Finish the strings alone."""
        return {"bytes": self._text.close(), "offsets": self._offsets.close()}

    def abort(self) -> None:
        self._text.abort()
        self._offsets.abort()


def _hash_pieces(arrays: dict[str, FlatArray], num_nodes: int) -> Iterator[Hashes]:
    for first in range(0, num_nodes, _PIECE):
        bounds = arrays["offsets"].read(first, min(first + _PIECE, num_nodes) + 1)
        text = arrays["bytes"].read(int(bounds[0]), int(bounds[-1]))
        yield hash_texts(bounds - bounds[0], text)


def ids_of_edges(
    folder: Path, spill: Path, node_type: str, chunks: Callable[[], Iterator[ExternalIds]], memory: int
) -> NodeIdSpace:
    """Write the id map of the distinct ids that edges name.

    Integers are numbered in ascending order, strings in the order of their hashes: neither depends on the budget.

    Args:
        chunks: All ids of the node type, with repeats; starts from the beginning on every call.
        spill: Folder for temporary files; the caller removes it.
        memory: Bytes that may be used.

    Raises:
        InputError: Some ids are integers and some are strings.
    """
    first = next((ids for ids in chunks() if len(ids)), None)
    texts = first is not None and is_text(plain_ids(first))

    def plain() -> Iterator[Any]:
        for ids in chunks():
            found = plain_ids(ids)
            if len(found) and is_text(found) != texts:
                raise InputError(f"node type '{node_type}': some edges name it by integers and some by strings")
            if len(found):
                yield found

    base = folder / f"id_map/{node_type}"
    write = _write_distinct_texts if texts else _write_distinct_integers
    kind, num_nodes, specs = write(base, plain, spill, memory)
    return NodeIdSpace(
        node_type=node_type,
        kind=kind,
        num_nodes=num_nodes,
        folder=folder,
        arrays={f"id_map/{node_type}/{name}": spec for name, spec in specs.items()},
    )


_Written = tuple[Kind, int, dict[str, FlatSpec]]  # kind of map, N, arrays


def _write_distinct_integers(base: Path, ids: Callable[[], Iterator[Any]], spill: Path, memory: int) -> _Written:
    writer = _IntegerIds(base)
    try:
        for piece in distinct_integers(ids, spill, memory):
            writer.add(piece)
        num_nodes = writer.num_rows
        kind, specs = writer.close(_Order(spill, memory))
        return kind, num_nodes, specs
    except BaseException:
        writer.abort()
        raise


def _write_distinct_texts(base: Path, ids: Callable[[], Iterator[Any]], spill: Path, memory: int) -> _Written:
    writer, hashes = _TextIds(base), FlatWriter(base / "hashes", np.uint64)
    try:
        for found, texts in distinct_texts(ids(), spill, memory):
            hashes.append(found)
            writer.add(texts)
        # Nodes are in the order of their hashes: the map needs no order of its own.
        return "string", hashes.num_rows, writer.close_texts() | {"hashes": hashes.close()}
    except BaseException:
        writer.abort()
        hashes.abort()
        raise
