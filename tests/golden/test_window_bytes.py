"""The exact bytes of a small window of format version 3, spelled out field by field; they may never change."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xxhash

from graphsys.core.types import BatchResidency, SampledBatch
from graphsys.storage.window import Window, WindowBatch, WindowHeader, WindowWriter

PAGE = 4096
ROWS = np.arange(2 * 128, dtype=np.uint8).reshape(2, 128)

HEADER = WindowHeader(
    window_index=5,
    first_position=40,
    num_batches=1,
    num_hops=1,
    fingerprint="00112233445566778899aabbccddeeff",
    dim=3,
    codec="float32",
    row_nbytes=128,
    num_slots=2,
    num_initial_rows=1,
    has_residency=True,
    has_rows=True,
    narrow_ids=True,
)
BATCH = WindowBatch(
    sampled=SampledBatch(
        epoch=1,
        batch_id=8,
        node=np.array([7, 3, 9]),
        indptr=np.array([0, 2, 3], np.int32),
        indices=np.array([1, 2, 0], np.int32),
        num_sampled_nodes=(2, 1),
        num_sampled_edges=(3,),
        in_degree=np.array([4, 1, 0], np.int32),
    ),
    y=np.array([1, -1]),
    residency=BatchResidency(
        source=np.array([1, 0, -2], np.int32),
        fetch_node=np.array([3, 7]),
        insert_row=np.array([1], np.int32),
        insert_slot=np.array([0], np.int32),
    ),
    rows=ROWS,
)


def padded(raw: bytes, step: int) -> bytes:
    return raw + bytes(-len(raw) % step)


def xxh3(raw: bytes) -> int:
    return xxhash.xxh3_64(raw).intdigest()


def expected_blob() -> bytes:
    fixed = struct.pack("<7q iHBB q 56x", 40, 1, 8, 3, 3, 2, 1, 1, 1, 1, 1, 0)
    arrays = [
        struct.pack("<3q", 2, 1, 3),  # num_sampled
        struct.pack("<3i", 7, 3, 9),  # node
        struct.pack("<3i", 1, 0, -2),  # source
        struct.pack("<1i", 1),  # insert_row
        struct.pack("<1i", 0),  # insert_slot
        struct.pack("<2i", 3, 7),  # fetch_node
        struct.pack("<3i", 0, 2, 3),  # indptr
        struct.pack("<3i", 1, 2, 0),  # indices
        struct.pack("<3i", 4, 1, 0),  # in_degree
        struct.pack("<2q", 1, -1),  # y
    ]
    assert len(fixed) == 128
    return padded(fixed + b"".join(padded(array, 64) for array in arrays), PAGE) + padded(ROWS.tobytes(), PAGE)


INITIAL_ROW = np.arange(128, dtype=np.uint8)[::-1].reshape(1, 128)  # of node 9


def expected_file(version: int) -> bytes:
    rows = padded(INITIAL_ROW.tobytes(), PAGE) if version == 3 else b""
    blob = expected_blob()
    head_nbytes = 128 + 5 * 64 + 8
    initial, final = (padded(struct.pack("<2q", *slots), PAGE) for slots in ((-1, 9), (7, 9)))
    entry = struct.pack(
        "<2qQqQ7q", PAGE, 2 * PAGE, xxh3(blob), head_nbytes, xxh3(blob[:head_nbytes]), 40, 1, 8, 3, 3, 2, 1
    )
    index = padded(entry, PAGE)
    header = struct.pack(
        "<8sII10q3Q16s64sqQ3872x",
        *(b"GSPACK\x00\x01", version, 0b111),
        *(6 * PAGE + len(rows), 5, 40, 1, 1, 3, 128, 2, 3 * PAGE + len(rows), 5 * PAGE + len(rows)),
        *(xxh3(initial), xxh3(final), xxh3(index)),
        *(b"float32", b"00112233445566778899aabbccddeeff"),
        *((1, xxh3(rows)) if rows else (0, 0)),
    )
    header += struct.pack("<Q", xxh3(header))
    return header + blob + rows + initial + final + index


def test_a_window_has_exactly_the_documented_bytes(tmp_path: Path) -> None:
    with WindowWriter(tmp_path / "w.pack", header=HEADER) as writer:
        writer.add(BATCH.sampled, y=BATCH.y, residency=BATCH.residency, rows=BATCH.rows)
        writer.write_rows(writer.begin_initial_rows(), 0, INITIAL_ROW)
        writer.close(np.array([-1, 9]), np.array([7, 9]))
    found = (tmp_path / "w.pack").read_bytes()
    assert found == expected_file(3)
    assert xxhash.xxh3_128(found).hexdigest() == "616230f5f38344dcee8f3467cae541e3"


@pytest.mark.parametrize("version", [2, 3])
def test_a_window_of_every_version_is_read(tmp_path: Path, version: int) -> None:
    (tmp_path / "w.pack").write_bytes(expected_file(version))
    window = Window.open(tmp_path / "w.pack", HEADER.fingerprint)
    window.verify()
    batch = window.read(0)
    assert window.header == replace(HEADER, num_initial_rows=version - 2)
    assert [rows.tolist() for rows in window.initial_rows(1)] == ([INITIAL_ROW.tolist()] if version == 3 else [])
    assert batch.sampled.node.tolist() == [7, 3, 9]
    assert [hop.indices.tolist() for hop in batch.sampled.hops] == [[1, 2, 0]]
    assert batch.rows is not None
    assert batch.rows.tobytes() == ROWS.tobytes()
    assert window.initial_slots().tolist() == [-1, 9]
    assert window.final_slots().tolist() == [7, 9]
