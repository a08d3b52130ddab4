"""Writes a window: batches from front to back, their rows whenever the feature scan meets them. See ``window.py``."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import xxhash

from graphsys.core.types import Array, BatchResidency, NodeIds, SampledBatch
from graphsys.storage.direct import PAGE, Bytes, align_down, align_up, aligned_empty
from graphsys.storage.direct_output import DirectOutput
from graphsys.storage.files import disk_errors, fsync_path, partial_path
from graphsys.storage.window_blob import (
    BLOB,
    BlobCounts,
    Section,
    blob_nbytes,
    blob_sections,
    encode_blob_header,
    head_nbytes,
)
from graphsys.storage.window_layout import (
    WindowEntry,
    WindowHeader,
    checksum,
    encode_header,
    encode_index,
    slots_nbytes,
    tail_of,
)

_NO_BYTES: Bytes = np.empty(0, np.uint8)


@dataclass(slots=True, kw_only=True)
class _Open:
    """A batch, or the rows of the initial slots, in the file; rows are perhaps still to come."""

    what: str
    offset: int
    nbytes: int
    entry: WindowEntry | None  # of a batch, the checksum still missing
    rows: Section | None
    rows_done: int
    digest: "xxhash.xxh3_64"  # of all bytes of the blob up to the rows that are there
    last_page: Bytes  # bytes of those rows that do not fill a page yet, and are not in the file


class WindowWriter:
    """Builds a window under a temporary name; :meth:`close` gives it its own.

    Batches come in the order of their positions. Rows of a batch come in ascending order, but batches may take turns:
    room for them is kept when the batch begins, so a full disk is met before the feature scan, not after it.
    Leaving the ``with`` block without :meth:`close`, or by an error, leaves nothing behind.

    Cost:
        Memory: 1 MiB; the ids of one batch, twice; up to 5 KiB per batch. Dirty page cache: ``flush_bytes`` where the
        file system has no direct I/O, none elsewhere.
    """

    def __init__(self, path: Path, *, header: WindowHeader, flush_bytes: int = 64 << 20) -> None:
        """Create the temporary file.

        Raises:
            DiskError: The system refused.
        """
        if header.has_rows and not (header.has_residency and header.row_nbytes > 0):
            raise ValueError(f"{path}: a window with rows needs residency and a row size, not {header}")
        if header.num_initial_rows and not header.has_rows:
            raise ValueError(f"{path}: a window without rows holds none of the initial slots either, not {header}")
        self.path = path
        self.header = header
        self._partial = partial_path(path)
        self._end = PAGE  # where the next blob starts
        self._parts: list[_Open] = []  # the batches, then the initial rows where there are some
        self._file = DirectOutput(self._partial, path, flush_bytes=flush_bytes)

    def add(
        self,
        sampled: SampledBatch,
        *,
        y: Array | None = None,
        residency: BatchResidency | None = None,
        rows: Bytes | None = None,
    ) -> None:
        """Append a whole batch.

        Args:
            sampled: The batch; its position is the header's first plus the number of batches before it.
            y: [B] int64, [B, C] uint8, or [B] or [B, C] float32 labels of the seeds.
            residency: Needed exactly when the header says so.
            rows: [R, row_nbytes] uint8 encoded rows of ``residency.fetch_node``; as for residency.

        Raises:
            DiskError: The system refused.
        """
        batch = self.begin(sampled, y=y, residency=residency)
        if rows is not None:
            self.write_rows(batch, 0, rows)

    def begin(self, sampled: SampledBatch, *, y: Array | None = None, residency: BatchResidency | None = None) -> int:
        """Append a batch whose rows come later, keep room for them, and return its index in the window.

        Raises:
            DiskError: The system refused; a full disk is met here.
        """
        index = len(self._parts)
        if index == self.header.num_batches or (residency is not None) != self.header.has_residency:
            raise ValueError(f"{self.path}: batch {index} does not fit the window's header {self.header}")
        counts = _counts(sampled, y, residency, self.header)
        sections = blob_sections(counts)
        head = _head(sampled, y, residency, counts, sections, self.header.first_position + index)
        rows, nbytes = sections.get("rows"), blob_nbytes(sections)
        self._file.reserve(self._end, nbytes)
        self._file.write(self._end, head)
        head_end = head_nbytes(sections)
        entry = WindowEntry(
            offset=self._end,
            nbytes=nbytes,
            checksum=0,
            head_nbytes=head_end,
            head_checksum=checksum(head[:head_end]),
            position=self.header.first_position + index,
            epoch=sampled.epoch,
            batch_id=sampled.batch_id,
            num_nodes=counts.num_nodes,
            num_edges=counts.num_edges,
            num_rows=counts.num_rows,
            num_inserts=counts.num_inserts,
        )
        self._open(f"batch {index}", nbytes, entry, rows, xxhash.xxh3_64(head.data))
        return index

    def begin_initial_rows(self) -> int:
        """Keep room behind the last batch for the rows of the initial slots; return what :meth:`write_rows` takes.

        They come by ascending ids, all that the header counts.

        Raises:
            DiskError: The system refused; a full disk is met here.
        """
        header = self.header
        if len(self._parts) != header.num_batches or not header.num_initial_rows:
            raise ValueError(f"{self.path}: initial rows do not fit the header {header} here")
        nbytes = header.initial_rows_nbytes
        self._file.reserve(self._end, nbytes)
        rows = Section(offset=0, dtype=np.dtype("u1"), shape=(header.num_initial_rows, header.row_nbytes))
        self._open("the initial rows", nbytes, None, rows, xxhash.xxh3_64())
        return header.num_batches

    def _open(
        self, what: str, nbytes: int, entry: WindowEntry | None, rows: Section | None, digest: "xxhash.xxh3_64"
    ) -> None:
        part = _Open(
            what=what, offset=self._end, nbytes=nbytes, entry=entry, rows=rows, rows_done=0, digest=digest,
            last_page=_NO_BYTES,
        )  # fmt: skip
        self._parts.append(part)
        self._end += nbytes

    def write_rows(self, batch: int, first_row: int, rows: Bytes) -> None:
        """Write the next rows of a batch.

        Args:
            batch: What :meth:`begin` or :meth:`begin_initial_rows` returned.
            first_row: Index of ``rows[0]`` among the batch's rows; all rows before it are there already.
            rows: [C, row_nbytes] uint8.

        Raises:
            DiskError: The system refused.
        """
        room = self.run_room(first_row)
        pages = aligned_empty(align_up(room + rows.nbytes))
        pages[room : room + rows.nbytes] = np.ascontiguousarray(rows).reshape(-1)
        self.write_run(batch, first_row, len(rows), pages)

    def run_room(self, first_row: int) -> int:
        """Return how many bytes behind the front of a page the row ``first_row`` of a batch starts."""
        return first_row * self.header.row_nbytes % PAGE

    def write_run(self, batch: int, first_row: int, num_rows: int, pages: Bytes) -> None:
        """Write the next rows of a batch without a copy; several threads may do so, each for other batches.

        Args:
            batch: What :meth:`begin` returned.
            first_row: Index of the first row among the batch's rows; all rows before it are there already.
            num_rows: How many rows there are.
            pages: whole page-aligned pages, uint8; the rows start at byte ``run_room(first_row)``. What lies around
                them is overwritten.

        Raises:
            DiskError: The system refused.
        """
        state = self._parts[batch]
        section = state.rows
        if section is None or first_row != state.rows_done or first_row + num_rows > section.shape[0]:
            raise ValueError(
                f"{self.path}: rows {first_row} to {first_row + num_rows} of {state.what} do not follow the "
                f"{state.rows_done} of {section.shape[0] if section else 0} that are there"
            )
        room = self.run_room(first_row)
        end = room + num_rows * self.header.row_nbytes
        state.digest.update(pages[room:end].data)
        state.rows_done += num_rows
        pages[:room] = state.last_page
        pages[end : align_up(end)] = 0
        # A page that the next rows share is held back; behind the last row zeros fill the page.
        whole = align_up(end) if state.rows_done == section.shape[0] else align_down(end)
        state.last_page = pages[whole:end].copy()
        offset = state.offset + section.offset + first_row * self.header.row_nbytes - room
        self._file.write(offset, pages[:whole])

    def close(self, initial_slots: NodeIds | None = None, final_slots: NodeIds | None = None) -> None:
        """Write slot maps, index and header, flush to the device and give the file its name.

        Args:
            initial_slots: [S] int64 global id in each cache slot before the first batch, -1 where empty.
            final_slots: [S] the same after the last batch.

        Raises:
            DiskError: The system refused; nothing is left.
        """
        self._check_complete()
        sums = [_checksum(part) for part in self._parts]
        entries = [
            replace(part.entry, checksum=found) for part, found in zip(self._parts, sums, strict=True) if part.entry
        ]
        initial, final = (self._padded_slots(slots) for slots in (initial_slots, final_slots))
        index = encode_index(entries)
        tail = replace(
            tail_of(self.header, self._end),
            initial_checksum=checksum(initial),
            final_checksum=checksum(final),
            index_checksum=checksum(index),
            initial_rows_checksum=sums[-1] if self.header.num_initial_rows else 0,
        )
        try:
            self._file.write(tail.slots_offset, initial, final)
            self._file.write(tail.index_offset, index)
            self._file.write(0, np.frombuffer(encode_header(self.header, tail), np.uint8))
            self._file.sync()
            with disk_errors("write", self.path):
                self._partial.replace(self.path)
                # Without this, a power cut could lose the rename while a checkpoint written later survives.
                fsync_path(self.path.parent)
        except BaseException:
            self.abort()
            raise
        self._file.close()

    def abort(self) -> None:
        """Remove the temporary file; nothing happens after :meth:`close`."""
        if not self._file.closed:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def _check_complete(self) -> None:
        missing = [part.what for part in self._parts if part.rows is not None and part.rows_done < part.rows.shape[0]]
        if missing or len(self._parts) != self.header.num_batches + (self.header.num_initial_rows > 0):
            raise ValueError(
                f"{self.path}: {len(self._parts)} parts are there, {', '.join(missing) or 'none'} of them without all "
                f"rows; they do not fit the header {self.header}"
            )

    def _padded_slots(self, slots: NodeIds | None) -> Bytes:
        slots = np.empty(0, np.int64) if slots is None else slots
        if slots.shape != (self.header.num_slots,):
            raise ValueError(f"{self.path}: {slots.shape} slots do not fit the header's {self.header.num_slots}")
        padded = np.zeros(slots_nbytes(self.header), np.uint8)
        padded[: slots.nbytes] = np.ascontiguousarray(slots, "<i8").view(np.uint8)
        return padded

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def _checksum(part: _Open) -> int:
    if part.rows is not None:
        part.digest.update(bytes(part.nbytes - part.rows.end))  # the padding: never written, so zero
    return part.digest.intdigest()


def _counts(
    sampled: SampledBatch, y: Array | None, residency: BatchResidency | None, header: WindowHeader
) -> BlobCounts:
    return BlobCounts(
        num_sampled_nodes=sampled.num_sampled_nodes,
        num_sampled_edges=sampled.num_sampled_edges,
        num_rows=len(residency.fetch_node) if residency is not None else 0,
        num_inserts=len(residency.insert_row) if residency is not None else 0,
        has_in_degree=sampled.in_degree is not None,
        has_residency=residency is not None,
        narrow_ids=header.narrow_ids,
        row_nbytes=header.row_nbytes if header.has_rows else 0,
        y_dtype=y.dtype if y is not None else None,
        y_shape=y.shape if y is not None else (),
    )


def _head(
    sampled: SampledBatch,
    y: Array | None,
    residency: BatchResidency | None,
    counts: BlobCounts,
    sections: dict[str, Section],
    position: int,
) -> Bytes:
    """Return all of a blob but its rows, zero between the arrays."""
    arrays: dict[str, Any] = {
        "num_sampled": np.array(sampled.num_sampled_nodes + sampled.num_sampled_edges, np.int64),
        "node": sampled.node,
        "indptr": sampled.indptr,
        "indices": sampled.indices,
        "in_degree": sampled.in_degree,
        "y": y,
    }
    if residency is not None:
        arrays |= {name: getattr(residency, name) for name in ("source", "insert_row", "insert_slot", "fetch_node")}
    rows = sections.get("rows")
    head = aligned_empty(rows.offset if rows is not None else blob_nbytes(sections))  # an anonymous map: zero
    fixed = encode_blob_header(counts, position=position, epoch=sampled.epoch, batch_id=sampled.batch_id)
    head[: BLOB.itemsize] = np.frombuffer(fixed, np.uint8)
    for name, section in sections.items():
        if name != "rows":
            section.view(head)[...] = arrays[name]
    return head
