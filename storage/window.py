"""A window: the next batches of a run in one file, each read with one direct read. Bytes: ``docs/format/pack.md``.

The same format serves sampled batches (``.sample``: hops only) and packed ones (``.pack``: residency, perhaps rows).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from pathlib import Path

import numpy as np
import xxhash

from graphsys.core.errors import CorruptError, StaleArtefactError
from graphsys.core.types import Array, BatchResidency, NodeIds, SampledBatch
from graphsys.core.units import MIB
from graphsys.storage.direct import PAGE, Bytes, DirectFile, align_up, aligned_empty
from graphsys.storage.window_blob import BlobCounts, blob_sections, decode_counts
from graphsys.storage.window_layout import (
    WindowEntry,
    WindowHeader,
    WindowTail,
    blob_offsets,
    checksum,
    contradiction,
    corrupt,
    decode_header,
    decode_index,
    slots_nbytes,
    tail_of,
)
from graphsys.storage.window_writer import WindowWriter

__all__ = ["Window", "WindowBatch", "WindowEntry", "WindowHeader", "WindowWriter"]

_VERIFY_NBYTES = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowBatch:
    """One batch as a window holds it; the arrays are views into one buffer."""

    sampled: SampledBatch
    y: Array | None  # labels of the seeds: [B] int64, [B, C] uint8, or [B] or [B, C] float32
    residency: BatchResidency | None
    rows: Bytes | None  # [R, row_nbytes] uint8 encoded rows of residency.fetch_node


class Window:
    """A window opened for reading. Holds no file open: safe from several threads, and nothing to close."""

    def __init__(self, path: Path, header: WindowHeader, tail: WindowTail, entries: tuple[WindowEntry, ...]) -> None:
        self.path = path
        self.header = header
        self.entries = entries
        self.nbytes = tail.file_nbytes
        self._tail = tail

    @classmethod
    def open(cls, path: Path, fingerprint: str | None) -> "Window":
        """Open the window at ``path``; header and index are checked, batches when they are read.

        Args:
            fingerprint: What the window must have been made from; None takes any.

        Raises:
            ArtefactError: It is not a window.
            FormatVersionError: It was written by a newer format.
            CorruptError: Header or index changed, or the file has another size than the header says.
            StaleArtefactError: It was made from something else.
            DiskError: The system refused.
        """
        with DirectFile(path) as file:
            header, tail = decode_header(file.read(0, min(PAGE, file.nbytes)), path)
            if fingerprint is not None and header.fingerprint != fingerprint:
                raise StaleArtefactError(
                    f"{path} was made from {header.fingerprint}, this run needs {fingerprint}: the store or the "
                    f"configuration changed. Choose another out folder, or remove the file"
                )
            if file.nbytes != tail.file_nbytes:
                raise CorruptError(
                    f"{path} is truncated or overwritten: {file.nbytes} bytes found, {tail.file_nbytes} expected. "
                    f"Remove the file; the run makes it again"
                )
            _check_tail(path, header, tail)
            raw = _checked(file, "the index", tail.index_offset, tail.file_nbytes, tail.index_checksum)
        entries = decode_index(raw, header.num_batches)
        _check_entries(path, header, tail, entries)
        return cls(path, header, tail, entries)

    @property
    def largest_nbytes(self) -> int:
        """Bytes of the largest batch: a buffer of this size serves them all."""
        return max((entry.nbytes for entry in self.entries), default=0)

    def read(self, index: int, buffer: Bytes | None = None) -> WindowBatch:
        """Return a batch by one direct read, its checksum checked.

        Args:
            index: Place in the window.
            buffer: Page-aligned uint8 of at least ``entries[index].nbytes`` bytes; the batch's arrays are views into
                it. A fresh one without it.

        Raises:
            CorruptError: A byte of the batch changed.
            DiskError: The system refused.
        """
        entry = self.entries[index]
        blob = aligned_empty(entry.nbytes) if buffer is None else buffer[: entry.nbytes]
        with DirectFile(self.path) as file:
            file.read_into(entry.offset, blob)
        self._check(f"batch {index}", blob, entry.checksum, entry.offset)
        return _batch(blob, self._counts(blob, index), entry)

    def nodes(self, index: int) -> NodeIds:
        """Return the node ids [V] of a batch, checked, by reading its head only.

        Raises:
            CorruptError, DiskError: As :meth:`read`.
        """
        return _ids(self._head(index)["node"])

    def residency(self, index: int) -> BatchResidency:
        """Return where the rows of a batch come from, checked, by reading its head only.

        Raises:
            ValueError: The window has no residency.
            CorruptError, DiskError: As :meth:`read`.
        """
        residency = _residency(self._head(index))
        if residency is None:
            raise ValueError(f"{self.path} holds samples only; pack it")
        return residency

    def _head(self, index: int) -> dict[str, Array]:
        """Return the arrays in the head of a batch, by name."""
        entry = self.entries[index]
        with DirectFile(self.path) as file:
            head = file.read(entry.offset, entry.head_nbytes)
        self._check(f"the head of batch {index}", head, entry.head_checksum, entry.offset)
        sections = blob_sections(self._counts(head, index))
        return {name: section.view(head) for name, section in sections.items() if section.end <= entry.head_nbytes}

    def initial_slots(self) -> NodeIds:
        """Return the global id [S] in each cache slot before the first batch, -1 where empty."""
        return self._slots("the initial slot map", self._tail.slots_offset, self._tail.initial_checksum)

    def final_slots(self) -> NodeIds:
        """Return the global id [S] in each cache slot after the last batch, -1 where empty."""
        offset = self._tail.slots_offset + slots_nbytes(self.header)
        return self._slots("the final slot map", offset, self._tail.final_checksum)

    def initial_rows(self, memory: int) -> Iterator[Bytes]:
        """Yield the encoded rows [*, row_nbytes] of the initial slots in parts, by ascending global id.

        Args:
            memory: bytes of a part; a single row may take more. A part is valid until the next one.

        Raises:
            CorruptError: A byte of them changed; raised behind the last part.
            DiskError: The system refused.
        """
        header, width = self.header, self.header.row_nbytes
        if not header.num_initial_rows:
            return
        whole = width * PAGE // gcd(width, PAGE)  # parts start on a page, and with a row
        part = align_up(max(memory // whole, 1) * whole)
        start, end = self._tail.slots_offset - header.initial_rows_nbytes, header.num_initial_rows * width
        buffer, digest = aligned_empty(min(part, header.initial_rows_nbytes)), xxhash.xxh3_64()
        with DirectFile(self.path) as file:
            for offset in range(0, header.initial_rows_nbytes, part):
                pages = buffer[: min(part, header.initial_rows_nbytes - offset)]
                file.read_into(start + offset, pages)
                digest.update(pages.data)
                yield pages[: min(pages.nbytes, end - offset)].reshape(-1, width)
        found, expected = digest.intdigest(), self._tail.initial_rows_checksum
        if found != expected:
            raise corrupt(self.path, "the initial rows", found, expected, header.initial_rows_nbytes, start)

    def verify(self) -> None:
        """Read everything; check every byte, and that every index within a batch points into it.

        Raises:
            CorruptError: The first difference found.
        """
        buffer = aligned_empty(self.largest_nbytes)
        for index in range(len(self.entries)):
            batch = self.read(index, buffer)
            self.nodes(index)
            if not _indices_fit(batch, self.header):
                raise contradiction(self.path, f"batch {index}")
        if self.header.num_initial_rows not in (0, np.count_nonzero(self.initial_slots() >= 0)):
            raise contradiction(self.path, "the header")
        self.final_slots()
        for _ in self.initial_rows(_VERIFY_NBYTES):
            pass

    def _slots(self, what: str, offset: int, expected: int) -> NodeIds:
        end = offset + slots_nbytes(self.header)
        with DirectFile(self.path) as file:
            raw = _checked(file, what, offset, end, expected)
        return raw[: 8 * self.header.num_slots].view("<i8")

    def _check(self, what: str, raw: Bytes, expected: int, offset: int) -> None:
        found = checksum(raw)
        if found != expected:
            raise corrupt(self.path, what, found, expected, raw.nbytes, offset)

    def _counts(self, blob: Bytes, index: int) -> BlobCounts:
        counts = decode_counts(blob, self.header, self.entries[index])
        if counts is None:
            raise contradiction(self.path, f"batch {index}")
        return counts


def _check_tail(path: Path, header: WindowHeader, tail: WindowTail) -> None:
    """Check that slot maps and index, of the sizes that the header implies, fill the end of the file."""
    sizes = (
        header.num_batches, header.num_hops, header.num_slots, header.dim, header.row_nbytes, header.num_initial_rows,
    )  # fmt: skip
    implied = tail_of(header, tail.slots_offset)
    found = (tail.index_offset, tail.file_nbytes)
    rows_possible = header.has_residency and header.row_nbytes > 0
    if (
        min(sizes) < 0
        or found != (implied.index_offset, implied.file_nbytes)
        or (header.has_rows and not rows_possible)
        or header.num_initial_rows > (header.num_slots if header.has_rows else 0)
    ):
        raise contradiction(path, "the header")


def _check_entries(path: Path, header: WindowHeader, tail: WindowTail, entries: tuple[WindowEntry, ...]) -> None:
    """Check that the batches fill the file between header and slot maps, in order and without gaps."""
    offsets = blob_offsets(entries)
    placed = all(
        entry.offset == offset
        and entry.nbytes > 0
        and entry.nbytes % PAGE == 0
        and entry.position == header.first_position + index
        and 0 <= 4 * entry.num_nodes <= entry.head_nbytes <= entry.nbytes
        for index, (entry, offset) in enumerate(zip(entries, offsets, strict=False))
    )
    if not placed or offsets[-1] + header.initial_rows_nbytes != tail.slots_offset:
        raise contradiction(path, "the index")


def _checked(file: DirectFile, what: str, offset: int, end: int, expected: int) -> Bytes:
    if not 0 <= offset <= end <= file.nbytes:
        raise contradiction(file.path, "the header")
    raw = file.read(offset, end - offset)
    found = checksum(raw)
    if found != expected:
        raise corrupt(file.path, what, found, expected, end - offset, offset)
    return raw


def _batch(blob: Bytes, counts: BlobCounts, entry: WindowEntry) -> WindowBatch:
    views = {name: section.view(blob) for name, section in blob_sections(counts).items()}
    sampled = SampledBatch(
        epoch=entry.epoch,
        batch_id=entry.batch_id,
        node=_ids(views["node"]),
        indptr=views["indptr"],
        indices=views["indices"],
        num_sampled_nodes=counts.num_sampled_nodes,
        num_sampled_edges=counts.num_sampled_edges,
        in_degree=views.get("in_degree"),
    )
    return WindowBatch(sampled=sampled, y=views.get("y"), residency=_residency(views), rows=views.get("rows"))


def _residency(views: dict[str, Array]) -> BatchResidency | None:
    if "source" not in views:
        return None
    return BatchResidency(
        source=views["source"],
        fetch_node=_ids(views["fetch_node"]),
        insert_row=views["insert_row"],
        insert_slot=views["insert_slot"],
    )


def _ids(stored: Array) -> NodeIds:
    """Return global ids as the program has them; a view where they are stored so."""
    return stored.astype(np.int64, copy=False)


def _indices_fit(batch: WindowBatch, header: WindowHeader) -> bool:
    sampled, residency = batch.sampled, batch.residency
    fit = (
        sampled.indptr[0] == 0
        and sampled.indptr[-1] == sampled.num_edges
        and bool((np.diff(sampled.indptr) >= 0).all())
        and _within(sampled.indices, 0, sampled.num_nodes)
    )
    if residency is None:
        return fit
    num_rows = len(residency.fetch_node)
    return (
        fit
        and _within(residency.source, -header.num_slots, num_rows)
        and _within(residency.insert_row, 0, num_rows)
        and _within(residency.insert_slot, 0, header.num_slots)
    )


def _within(index: Array, low: int, high: int) -> bool:
    return index.size == 0 or (low <= int(index.min()) and int(index.max()) < high)
