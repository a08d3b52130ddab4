"""Edges as fixed-width records for the external sort: keys that order a CSC, then everything that travels along.

Without timestamps one word is the whole key: destination, source, flag. With timestamps there are three: destination,
time, then source and flag. The flag marks an edge that was derived (the reverse of another, or a self-loop candidate),
so that derived edges follow given ones within their group.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from graphsys.core.errors import InputError
from graphsys.core.types import Array, EdgeChunk, NodeIds
from graphsys.storage.external_sort import Records
from graphsys.storage.jit import njit

_SIGN = np.uint64(1 << 63)
GROUP = 2  # records of one destination, time and source differ in the flag only


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLayout:
    """What the records of one edge type hold."""

    num_src: int  # nodes of the source type
    num_dst: int  # nodes of the destination type
    has_timestamp: bool = False
    has_weight: bool = False
    has_edge_id: bool = False
    num_edge_features: int = 0

    @property
    def src_bits(self) -> int:
        """Bits of a source id and its flag."""
        return max(self.num_src - 1, 1).bit_length() + 1

    @property
    def key_bounds(self) -> tuple[int, ...]:
        """Exclusive upper bounds of the keys.

        Raises:
            InputError: Both node types together need over 63 bits.
        """
        if self.has_timestamp:
            return self.num_dst, 1 << 64, 2 * self.num_src
        if max(self.num_dst - 1, 1).bit_length() + self.src_bits > 64:
            raise InputError(f"{self.num_src} times {self.num_dst} nodes are more than one edge type may join")
        return (self.num_dst << self.src_bits,)

    @property
    def num_keys(self) -> int:
        """Words of the key."""
        return 3 if self.has_timestamp else 1

    @property
    def payload_words(self) -> int:
        """Words behind the key."""
        return self.has_edge_id + -(-(self.has_weight + self.num_edge_features) // 2)

    @property
    def words(self) -> int:
        """Words of a record."""
        return self.num_keys + self.payload_words

    def pack(self, edges: EdgeChunk, edge_id: NodeIds | None, *, derived: bool = False) -> Records:
        """Return the records [C, words] of ``edges``.

        Args:
            edge_id: [C] rows of the raw input, where the layout keeps them.
            derived: Set the flag.
        """
        records: Records = np.zeros((edges.num_edges, self.words), np.uint64)
        _pack_ends(records, edges.src, edges.dst, self.num_keys, np.uint64(self.src_bits), np.uint64(derived))
        if edges.timestamp is not None:
            records[:, 1] = edges.timestamp.view(np.uint64) ^ _SIGN  # the unsigned order is the signed one
        if self.has_edge_id and edge_id is not None:
            records[:, self.num_keys] = edge_id.view(np.uint64)
        floats = self._floats(records)
        if edges.weight is not None:
            floats[:, 0] = edges.weight
        if edges.edge_attr is not None:
            floats[:, self.has_weight :][:, : self.num_edge_features] = edges.edge_attr
        return records

    def ends(self, records: Records) -> tuple[NodeIds, NodeIds]:
        """Return sources and destinations [C]."""
        src, dst = (np.empty(records.shape[0], np.int64) for _ in range(2))
        _unpack_ends(records, self.num_keys, np.uint64(self.src_bits), src, dst)
        return src, dst

    def derived(self, records: Records) -> npt.NDArray[np.bool_]:
        """Return the flags [C]."""
        return (records[:, self.num_keys - 1] & np.uint64(1)).astype(np.bool_)

    def fields(self, records: Records) -> dict[str, Array]:
        """Return what travels along, by array name: timestamp, edge_id, weight, attr."""
        found: dict[str, Array] = {}
        if self.has_timestamp:
            found["timestamp"] = (records[:, 1] ^ _SIGN).view(np.int64)
        if self.has_edge_id:
            found["edge_id"] = records[:, self.num_keys].view(np.int64)
        floats = self._floats(records)
        if self.has_weight:
            found["weight"] = floats[:, 0]
        if self.num_edge_features:
            found["attr"] = floats[:, self.has_weight :][:, : self.num_edge_features]
        return found

    def _floats(self, records: Records) -> npt.NDArray[np.float32]:
        return records.view(np.float32)[:, 2 * (self.num_keys + self.has_edge_id) :]


@njit
def _pack_ends(
    records: Records, src: NodeIds, dst: NodeIds, num_keys: int, src_bits: np.uint64, flag: np.uint64
) -> None:
    last = num_keys - 1
    for row in range(records.shape[0]):
        end = (np.uint64(src[row]) << np.uint64(1)) | flag
        if num_keys == 1:
            records[row, 0] = (np.uint64(dst[row]) << src_bits) | end
        else:
            records[row, 0] = np.uint64(dst[row])
            records[row, last] = end


@njit
def _unpack_ends(records: Records, num_keys: int, src_bits: np.uint64, src: NodeIds, dst: NodeIds) -> None:
    mask, last = (np.uint64(1) << (src_bits - np.uint64(1))) - np.uint64(1), num_keys - 1
    for row in range(records.shape[0]):
        src[row] = np.int64((records[row, last] >> np.uint64(1)) & mask)
        dst[row] = np.int64(records[row, 0] >> src_bits if num_keys == 1 else records[row, 0])


@njit
def keep_rows(records: Records, num_keys: int, drop_duplicates: bool, keep: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Decide which records of whole groups become edges.

    A group is all records with one destination, time and source: f given edges, then r derived ones. An edge and its
    reverse must come equally often, and a self-loop candidate counts as one, so max(f, r) of them are kept; one with
    ``drop_duplicates``. Given edges go first.

    Args:
        records: [C, W] sorted.
        keep: [C] result.

    Returns:
        Surplus given edges (f - 1 of every group), and the row of the first of them or -1.
    """
    duplicates, first, start = 0, -1, 0
    num_given = 0
    for row in range(records.shape[0] + 1):
        if row == records.shape[0] or (row > start and not _same_group(records, row, start, num_keys)):
            num_derived = row - start - num_given
            wanted = 1 if drop_duplicates else max(num_given, num_derived)
            for place in range(start, row):
                keep[place] = place - start < wanted
            if num_given > 1:
                duplicates += num_given - 1
                first = start + 1 if first < 0 else first
            start, num_given = row, 0
        if row < records.shape[0]:
            num_given += int(records[row, num_keys - 1] & np.uint64(1) == np.uint64(0))
    return duplicates, first


@njit
def _same_group(records: Any, a: int, b: int, num_keys: int) -> bool:
    for column in range(num_keys - 1):
        if records[a, column] != records[b, column]:
            return False
    last = num_keys - 1
    return bool((records[a, last] >> np.uint64(1)) == (records[b, last] >> np.uint64(1)))
