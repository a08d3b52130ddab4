"""A window gives back any batch, and its layout keeps what the format page promises."""

import tempfile
from pathlib import Path

import numpy as np
from helpers.windows import same_arrays
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.types import Array, BatchResidency, SampledBatch
from graphsys.storage.window import Window, WindowBatch, WindowHeader, WindowWriter
from graphsys.storage.window_blob import BlobCounts, blob_nbytes, blob_sections

COUNTS = st.lists(st.integers(0, 300), min_size=1, max_size=4)
NUM_SLOTS = 50


@st.composite
def batches(draw: st.DrawFn, num_hops: int, row_nbytes: int) -> WindowBatch:
    """Batches of any size whose arrays hold any values; indices need not fit."""
    values = np.random.default_rng(draw(st.integers(0, 1 << 20)))

    def array(length: int, dtype: str = "int32") -> Array:
        return values.integers(0, 100, length).astype(dtype)

    nodes = tuple(draw(st.lists(st.integers(0, 300), min_size=num_hops + 1, max_size=num_hops + 1)))
    edges = tuple(draw(st.lists(st.integers(0, 300), min_size=num_hops, max_size=num_hops)))
    sampled = SampledBatch(
        epoch=draw(st.integers(0, 1 << 40)),
        batch_id=draw(st.integers(0, 1 << 40)),
        node=array(sum(nodes), "int64"),
        indptr=array(sum(nodes[:-1]) + 1),
        indices=array(sum(edges)),
        num_sampled_nodes=nodes,
        num_sampled_edges=edges,
        in_degree=array(sum(nodes)) if draw(st.booleans()) else None,
    )
    y = draw(st.sampled_from([None, "int64", "float32", "uint8"]))
    columns = draw(st.sampled_from([None, 0, 1, 7]))
    labels = None if y is None else array(nodes[0] * (1 if columns is None else columns), y)
    if labels is not None and columns is not None:
        labels = labels.reshape(nodes[0], columns)
    if not row_nbytes:
        return WindowBatch(sampled=sampled, y=labels, residency=None, rows=None)
    num_rows, num_inserts = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    residency = BatchResidency(
        source=array(sum(nodes)),
        fetch_node=array(num_rows, "int64"),
        insert_row=array(num_inserts),
        insert_slot=array(num_inserts),
    )
    rows = array(num_rows * row_nbytes, "uint8").reshape(num_rows, row_nbytes)
    return WindowBatch(sampled=sampled, y=labels, residency=residency, rows=rows)


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(), num_hops=st.integers(0, 3), num_batches=st.integers(0, 4), row_nbytes=st.sampled_from([0, 48, 384])
)
def test_any_batches_come_back_as_they_were(
    data: st.DataObject, num_hops: int, num_batches: int, row_nbytes: int
) -> None:
    written = [data.draw(batches(num_hops, row_nbytes)) for _ in range(num_batches)]
    header = WindowHeader(
        window_index=0,
        first_position=0,
        num_batches=num_batches,
        num_hops=num_hops,
        fingerprint="",
        row_nbytes=row_nbytes,
        num_slots=NUM_SLOTS if row_nbytes else 0,
        has_residency=row_nbytes > 0,
        has_rows=row_nbytes > 0,
    )
    slots = np.arange(header.num_slots)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "w.pack"
        with WindowWriter(path, header=header) as writer:
            for batch in written:
                writer.add(batch.sampled, y=batch.y, residency=batch.residency, rows=batch.rows)
            writer.close(slots, slots)
        window = Window.open(path, "")
        assert all(same_arrays(window.read(index), batch) for index, batch in enumerate(written))


@settings(deadline=None)
@given(
    nodes=COUNTS,
    num_rows=st.integers(0, 300),
    num_inserts=st.integers(0, 300),
    in_degree=st.booleans(),
    row_nbytes=st.sampled_from([0, 128, 640]),
)
def test_arrays_are_aligned_and_do_not_overlap(
    nodes: list[int], num_rows: int, num_inserts: int, in_degree: bool, row_nbytes: int
) -> None:
    counts = BlobCounts(
        num_sampled_nodes=tuple(nodes),
        num_sampled_edges=tuple(nodes[1:]),
        num_rows=num_rows,
        num_inserts=num_inserts,
        has_in_degree=in_degree,
        has_residency=True,
        row_nbytes=row_nbytes,
    )
    sections = blob_sections(counts)
    end = 128
    for name, section in sections.items():
        assert section.offset >= end
        assert section.offset % (4096 if name == "rows" else 64) == 0
        end = section.end
    assert 0 <= blob_nbytes(sections) - end < 4096
    assert blob_nbytes(sections) % 4096 == 0
