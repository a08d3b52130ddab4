"""One batch within a window file: a fixed part, hop counts, then arrays. Bytes: ``docs/format/pack.md``.

The place of every array follows from the counts, so a reader needs no table of offsets. Everything is little-endian.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphsys.core.types import Array
from graphsys.storage.direct import Bytes, align_up
from graphsys.storage.window_layout import WindowEntry, WindowHeader

ARRAY_ALIGNMENT = 64  # one cache line; no vector load of an array straddles two

BLOB = np.dtype(
    [
        ("position", "<i8"),
        ("epoch", "<i8"),
        ("batch_id", "<i8"),
        ("num_nodes", "<i8"),
        ("num_edges", "<i8"),
        ("num_rows", "<i8"),
        ("num_inserts", "<i8"),
        ("num_hops", "<i4"),
        ("flags", "<u2"),
        ("y_type", "u1"),
        ("y_ndim", "u1"),
        ("y_columns", "<i8"),
        ("zero", "u1", (56,)),
    ]
)
_HAS_IN_DEGREE = 1  # flag of a blob
_Y_TYPES: tuple[np.dtype[Any] | None, ...] = (None, np.dtype("<i8"), np.dtype("u1"), np.dtype("<f4"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobCounts:
    """All that the layout of a blob depends on."""

    num_sampled_nodes: tuple[int, ...]  # L + 1
    num_sampled_edges: tuple[int, ...]  # L
    num_rows: int = 0  # R
    num_inserts: int = 0  # I
    has_in_degree: bool = False
    has_residency: bool = False
    narrow_ids: bool = False
    row_nbytes: int = 0  # 0 when the window has no rows
    y_dtype: np.dtype[Any] | None = None
    y_shape: tuple[int, ...] = ()  # [B] or [B, C]

    @property
    def num_nodes(self) -> int:
        """Number of distinct nodes V."""
        return sum(self.num_sampled_nodes)

    @property
    def num_edges(self) -> int:
        """Number of sampled edges E."""
        return sum(self.num_sampled_edges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One array within a blob."""

    offset: int  # from the first byte of the blob
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the array, padding left out."""
        return self.dtype.itemsize * prod(self.shape)

    @property
    def end(self) -> int:
        """Where the array ends, from the first byte of the blob."""
        return self.offset + self.nbytes

    def view(self, blob: Bytes) -> Array:
        """Return the array within ``blob`` (uint8, one-dimensional), without a copy."""
        return blob[self.offset : self.end].view(self.dtype).reshape(self.shape)


def blob_sections(counts: BlobCounts) -> dict[str, Section]:
    """Return the arrays of a blob, by name, in the order in which they lie."""
    i4, i8 = np.dtype("<i4"), np.dtype("<i8")
    ids = i4 if counts.narrow_ids else i8
    # What packing and resuming need comes first, so that they need not read the rest.
    arrays: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = [
        ("num_sampled", i8, (len(counts.num_sampled_nodes) + len(counts.num_sampled_edges),)),
        ("node", ids, (counts.num_nodes,)),
    ]
    if counts.has_residency:
        arrays += [
            ("source", i4, (counts.num_nodes,)),
            ("insert_row", i4, (counts.num_inserts,)),
            ("insert_slot", i4, (counts.num_inserts,)),
            ("fetch_node", ids, (counts.num_rows,)),
        ]
    arrays += [
        ("indptr", i4, (sum(counts.num_sampled_nodes[:-1]) + 1,)),
        ("indices", i4, (counts.num_edges,)),
    ]
    if counts.has_in_degree:
        arrays.append(("in_degree", i4, (counts.num_nodes,)))
    if counts.y_dtype is not None:
        arrays.append(("y", counts.y_dtype, counts.y_shape))
    sections, end = {}, BLOB.itemsize
    for name, dtype, shape in arrays:
        sections[name] = Section(offset=align_up(end, ARRAY_ALIGNMENT), dtype=dtype, shape=shape)
        end = sections[name].end
    if counts.row_nbytes:
        shape = (counts.num_rows, counts.row_nbytes)
        sections["rows"] = Section(offset=align_up(end), dtype=np.dtype("u1"), shape=shape)
    return sections


def head_nbytes(sections: dict[str, Section]) -> int:
    """Return the bytes from the front of a blob to the end of its ids and residency."""
    return sections["fetch_node" if "fetch_node" in sections else "node"].end


def blob_nbytes(sections: dict[str, Section]) -> int:
    """Return the bytes of a blob, padding included."""
    return align_up(list(sections.values())[-1].end)


def encode_blob_header(counts: BlobCounts, *, position: int, epoch: int, batch_id: int) -> bytes:
    """Return the fixed part at the front of a blob."""
    record = np.zeros(1, BLOB)
    record["position"], record["epoch"], record["batch_id"] = position, epoch, batch_id
    record["num_nodes"], record["num_edges"] = counts.num_nodes, counts.num_edges
    record["num_rows"], record["num_inserts"] = counts.num_rows, counts.num_inserts
    record["num_hops"] = len(counts.num_sampled_edges)
    record["flags"] = _HAS_IN_DEGREE * counts.has_in_degree
    record["y_type"] = _y_code(counts.y_dtype)
    record["y_ndim"] = len(counts.y_shape)
    record["y_columns"] = counts.y_shape[1] if len(counts.y_shape) == 2 else 0
    return record.tobytes()


def _y_code(dtype: np.dtype[Any] | None) -> int:
    if dtype not in _Y_TYPES:
        raise ValueError(f"labels of type {dtype} have no place in a window; use int64, uint8 or float32")
    return _Y_TYPES.index(dtype)


def decode_counts(blob: Bytes, header: WindowHeader, entry: WindowEntry) -> BlobCounts | None:
    """Return the counts of a blob, or None when they contradict the header, the index or each other.

    Args:
        blob: at least the fixed part and the hop counts of the blob.
    """
    record = blob[: BLOB.itemsize].view(BLOB)[0]
    same = ("position", "epoch", "batch_id", "num_nodes", "num_edges", "num_rows", "num_inserts")
    if any(int(record[name]) != getattr(entry, name) for name in same):
        return None
    hops, y_type, y_ndim = int(record["num_hops"]), int(record["y_type"]), int(record["y_ndim"])
    end = BLOB.itemsize + 8 * (2 * hops + 1)
    if hops != header.num_hops or end > blob.nbytes or y_type >= len(_Y_TYPES) or (y_type > 0) != (y_ndim in (1, 2)):
        return None
    sampled = tuple(int(count) for count in blob[BLOB.itemsize : end].view("<i8"))
    y_shape = (sampled[0], int(record["y_columns"]))[:y_ndim]
    if min(*sampled, *y_shape, entry.num_rows, entry.num_inserts) < 0:
        return None
    counts = BlobCounts(
        num_sampled_nodes=sampled[: hops + 1],
        num_sampled_edges=sampled[hops + 1 :],
        num_rows=entry.num_rows,
        num_inserts=entry.num_inserts,
        has_in_degree=bool(record["flags"] & _HAS_IN_DEGREE),
        has_residency=header.has_residency,
        narrow_ids=header.narrow_ids,
        row_nbytes=header.row_nbytes if header.has_rows else 0,
        y_dtype=_Y_TYPES[y_type],
        y_shape=y_shape,
    )
    sections = blob_sections(counts)
    found = (counts.num_nodes, counts.num_edges, head_nbytes(sections), blob_nbytes(sections))
    return counts if found == (entry.num_nodes, entry.num_edges, entry.head_nbytes, entry.nbytes) else None
