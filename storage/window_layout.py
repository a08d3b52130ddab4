"""The frame of a window file: header page, slot maps and index. Bytes: ``docs/format/pack.md``.

Pure functions between dataclasses and bytes; :mod:`graphsys.storage.window_writer` and :mod:`graphsys.storage.window`
do the input and output, :mod:`graphsys.storage.window_blob` lays out one batch. Everything is little-endian.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import xxhash

from graphsys.core.errors import ArtefactError, CorruptError, FormatVersionError
from graphsys.storage.direct import PAGE, Bytes, align_up

MAGIC = b"GSPACK\x00\x01"
VERSION = 3
_OLDEST = 2  # which has no initial rows, and zeros where their number stands

HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("flags", "<u4"),
        ("file_nbytes", "<i8"),
        ("window_index", "<i8"),
        ("first_position", "<i8"),
        ("num_batches", "<i8"),
        ("num_hops", "<i8"),
        ("dim", "<i8"),
        ("row_nbytes", "<i8"),
        ("num_slots", "<i8"),
        ("slots_offset", "<i8"),
        ("index_offset", "<i8"),
        ("initial_checksum", "<u8"),
        ("final_checksum", "<u8"),
        ("index_checksum", "<u8"),
        ("codec", "S16"),
        ("fingerprint", "S64"),
        ("num_initial_rows", "<i8"),
        ("initial_rows_checksum", "<u8"),
        ("zero", "u1", (3872,)),
        ("checksum", "<u8"),
    ]
)
ENTRY = np.dtype(
    [
        ("offset", "<i8"),
        ("nbytes", "<i8"),
        ("checksum", "<u8"),
        ("head_nbytes", "<i8"),
        ("head_checksum", "<u8"),
        ("position", "<i8"),
        ("epoch", "<i8"),
        ("batch_id", "<i8"),
        ("num_nodes", "<i8"),
        ("num_edges", "<i8"),
        ("num_rows", "<i8"),
        ("num_inserts", "<i8"),
    ]
)
_HAS_RESIDENCY, _HAS_ROWS, _NARROW_IDS = 1, 2, 4  # flags of the header
_COUNTS = (
    "window_index", "first_position", "num_batches", "num_hops", "dim", "row_nbytes", "num_slots", "num_initial_rows",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowHeader:
    """What a whole window has in common; the defaults describe a window of samples only."""

    window_index: int
    first_position: int  # position in the schedule of the first batch
    num_batches: int
    num_hops: int  # L
    fingerprint: str  # of all that the window was made from; ASCII, 64 characters at most
    dim: int = 0  # D, features per row
    codec: str = ""  # how rows are encoded; ASCII, 16 characters at most
    row_nbytes: int = 0  # bytes of one encoded row, a multiple of 16
    num_slots: int = 0  # S, slots of the cache
    num_initial_rows: int = 0  # rows of the initial slots that the window holds: all of them, or none
    has_residency: bool = False
    has_rows: bool = False
    narrow_ids: bool = False  # whether global ids are kept as int32

    @property
    def initial_rows_nbytes(self) -> int:
        """Bytes of the rows of the initial slots, padding included."""
        return align_up(self.num_initial_rows * self.row_nbytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowTail:
    """Where what follows the batches lies, and its checksums."""

    slots_offset: int  # batches and initial rows end here; initial slots, then final slots
    index_offset: int
    file_nbytes: int
    initial_checksum: int = 0
    final_checksum: int = 0
    index_checksum: int = 0
    initial_rows_checksum: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowEntry:
    """Where one batch lies in the file, and how much it holds."""

    offset: int  # multiple of 4096
    nbytes: int  # multiple of 4096, padding included
    checksum: int  # xxh3_64 of all nbytes
    head_nbytes: int  # from the first byte of the blob to the last of ids and residency
    head_checksum: int  # xxh3_64 of those
    position: int  # in the schedule
    epoch: int
    batch_id: int
    num_nodes: int  # V
    num_edges: int  # E
    num_rows: int  # R, rows to fetch; in the window itself when it has rows
    num_inserts: int  # I, rows that enter the cache


def checksum(content: Bytes | bytes) -> int:
    """Return the xxh3_64 of a contiguous run of bytes."""
    return xxhash.xxh3_64(content if isinstance(content, bytes) else content.data).intdigest()


def slots_nbytes(header: WindowHeader) -> int:
    """Return the bytes of one slot map, padding included."""
    return align_up(8 * header.num_slots)


def tail_of(header: WindowHeader, slots_offset: int) -> WindowTail:
    """Return where everything lies that follows batches which end at ``slots_offset``; no checksums."""
    index_offset = slots_offset + 2 * slots_nbytes(header)
    index_nbytes = align_up(ENTRY.itemsize * header.num_batches)
    return WindowTail(slots_offset=slots_offset, index_offset=index_offset, file_nbytes=index_offset + index_nbytes)


def encode_header(header: WindowHeader, tail: WindowTail) -> bytes:
    """Return the header page."""
    record = np.zeros(1, HEADER)
    record["magic"], record["version"] = MAGIC, VERSION
    flags = ((_HAS_RESIDENCY, header.has_residency), (_HAS_ROWS, header.has_rows), (_NARROW_IDS, header.narrow_ids))
    record["flags"] = sum(flag for flag, is_set in flags if is_set)
    for name in _COUNTS:
        record[name] = getattr(header, name)
    for name in ("codec", "fingerprint"):
        text = getattr(header, name).encode("ascii")
        if len(text) > HEADER[name].itemsize:
            raise ValueError(f"{name} '{getattr(header, name)}' is longer than {HEADER[name].itemsize} characters")
        record[name] = text
    for name in tail.__slots__:
        record[name] = getattr(tail, name)
    record["checksum"] = checksum(record.tobytes()[: -HEADER["checksum"].itemsize])
    return record.tobytes()


def decode_header(page: Bytes, path: Path) -> tuple[WindowHeader, WindowTail]:
    """Return what a header page says.

    Args:
        page: [4096] uint8.
        path: Named in errors.

    Raises:
        ArtefactError: It is not the header of a window.
        FormatVersionError: It was written by a newer format.
        CorruptError: A byte of it changed.
    """
    if page.nbytes < PAGE or page[: len(MAGIC)].tobytes() != MAGIC:
        raise ArtefactError(
            f"{path} is not a window: it does not start with {MAGIC!r}. Check the path, or make it again"
        )
    record = page[:PAGE].view(HEADER)[0]
    version = int(record["version"])
    if version > VERSION:
        raise FormatVersionError(
            f"{path} has window format version {version}; this program reads up to {VERSION}. Upgrade graphsys"
        )
    found, expected = checksum(page[: PAGE - 8]), int(record["checksum"])
    if found == expected and version < _OLDEST:
        raise FormatVersionError(
            f"{path} has window format version {version}, which no release wrote; this program reads version "
            f"{VERSION}. Remove the file; the run makes it again"
        )
    if found != expected:
        raise corrupt(path, "the header", found, expected, PAGE, 0)
    header = WindowHeader(
        **{name: int(record[name]) for name in _COUNTS},
        codec=bytes(record["codec"]).decode("ascii", "replace"),
        fingerprint=bytes(record["fingerprint"]).decode("ascii", "replace"),
        has_residency=bool(record["flags"] & _HAS_RESIDENCY),
        has_rows=bool(record["flags"] & _HAS_ROWS),
        narrow_ids=bool(record["flags"] & _NARROW_IDS),
    )
    return header, WindowTail(**{name: int(record[name]) for name in WindowTail.__slots__})


def encode_index(entries: Sequence[WindowEntry]) -> Bytes:
    """Return the index, padded to whole pages."""
    record = np.zeros(len(entries), ENTRY)
    for name in ENTRY.names or ():
        record[name] = [getattr(entry, name) for entry in entries]
    padded = np.zeros(align_up(record.nbytes), np.uint8)
    padded[: record.nbytes] = record.view(np.uint8)
    return padded


def decode_index(raw: Bytes, num_batches: int) -> tuple[WindowEntry, ...]:
    """Return the entries of an index whose checksum was right."""
    record = raw[: num_batches * ENTRY.itemsize].view(ENTRY)
    return tuple(
        WindowEntry(**dict(zip(ENTRY.names or (), (int(value) for value in row.item()), strict=True))) for row in record
    )


def corrupt(path: Path, what: str, found: int, expected: int, nbytes: int, offset: int) -> CorruptError:
    """Return the error for a part of a window whose checksum is wrong."""
    return CorruptError(
        f"{path}: {what} is corrupt: xxh3 {found:016x}, expected {expected:016x} ({nbytes} bytes at offset {offset}). "
        f"Remove the file; the run makes it again"
    )


def contradiction(path: Path, what: str) -> CorruptError:
    """Return the error for a part of a window that cannot be true although its checksum is right."""
    return CorruptError(
        f"{path}: {what} contradicts itself although its checksum is right. Remove the file; the run makes it again"
    )


def blob_offsets(entries: Sequence[WindowEntry]) -> list[int]:
    """Return where each blob must start, then where the last must end: blobs follow the header without gaps."""
    return list(accumulate((entry.nbytes for entry in entries), initial=PAGE))
