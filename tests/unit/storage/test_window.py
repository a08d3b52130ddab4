import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.windows import (
    FINAL_SLOTS,
    FINGERPRINT,
    INITIAL_SLOTS,
    ROW_NBYTES,
    header,
    packed_batches,
    residency_of,
    same_arrays,
    sampled_batch,
    write_packed,
)

from graphsys.core.errors import StaleArtefactError
from graphsys.core.metrics import measure, rss_bytes
from graphsys.core.types import Array
from graphsys.storage.direct import PAGE, aligned_empty
from graphsys.storage.window import Window, WindowBatch, WindowWriter


def write_samples_only(path: Path) -> Window:
    with WindowWriter(path, header=header(1, residency=False, rows=False)) as writer:
        writer.add(sampled_batch(0))
        writer.close()
    return Window.open(path, None)


def test_a_packed_window_gives_back_what_was_written(tmp_path: Path) -> None:
    batches = write_packed(tmp_path / "w.pack")
    window = Window.open(tmp_path / "w.pack", FINGERPRINT)
    assert window.header == header(3)
    assert window.nbytes == (tmp_path / "w.pack").stat().st_size
    for index, batch in enumerate(batches):
        assert same_arrays(window.read(index), batch)
        assert same_arrays(window.nodes(index), batch.sampled.node)
        assert same_arrays(window.residency(index), batch.residency)
    assert same_arrays(window.initial_slots(), INITIAL_SLOTS)
    assert same_arrays(window.final_slots(), FINAL_SLOTS)
    window.verify()


def test_a_window_of_samples_has_no_residency_rows_or_slots(tmp_path: Path) -> None:
    sampled = sampled_batch(0, with_degree=False)
    with WindowWriter(tmp_path / "w.sample", header=header(1, residency=False, rows=False)) as writer:
        writer.add(sampled)
        writer.close()
    window = Window.open(tmp_path / "w.sample", None)
    assert same_arrays(window.read(0), WindowBatch(sampled=sampled, y=None, residency=None, rows=None))
    assert len(window.initial_slots()) == len(window.final_slots()) == 0
    window.verify()


def test_narrow_ids_take_half_the_room_and_come_back_as_int64(tmp_path: Path) -> None:
    batch = packed_batches(1)[0]
    sizes = []
    for narrow in (False, True):
        path = tmp_path / f"{narrow}.pack"
        with WindowWriter(path, header=replace(header(1), narrow_ids=narrow)) as writer:
            writer.add(batch.sampled, y=batch.y, residency=batch.residency, rows=batch.rows)
            writer.close(INITIAL_SLOTS, FINAL_SLOTS)
        window = Window.open(path, None)
        assert same_arrays(window.read(0), batch)
        assert same_arrays(window.residency(0), batch.residency)
        sizes.append(window.entries[0].head_nbytes)
    assert sizes[0] - sizes[1] >= 4 * batch.sampled.num_nodes
    with pytest.raises(ValueError, match="holds samples only"):
        write_samples_only(tmp_path / "w.sample").residency(0)


def test_a_window_may_name_the_rows_to_fetch_without_holding_them(tmp_path: Path) -> None:
    sampled = sampled_batch(0)
    with WindowWriter(tmp_path / "w.pack", header=header(1, rows=False)) as writer:
        writer.add(sampled, residency=residency_of(sampled))
        writer.close(INITIAL_SLOTS, FINAL_SLOTS)
    batch = Window.open(tmp_path / "w.pack", None).read(0)
    assert same_arrays(batch.residency, residency_of(sampled))
    assert batch.rows is None


@pytest.mark.parametrize(
    "y",
    [
        np.array([3, -1, 2, 0, 9]),
        np.arange(5, dtype=np.float32),
        np.arange(15, dtype=np.float32).reshape(5, 3),
        (np.arange(20) % 2).astype(np.uint8).reshape(5, 4),
    ],
)
def test_labels_keep_their_type_and_shape(tmp_path: Path, y: Array) -> None:
    with WindowWriter(tmp_path / "w.sample", header=header(1, residency=False, rows=False)) as writer:
        writer.add(sampled_batch(0), y=y)
        writer.close()
    assert same_arrays(Window.open(tmp_path / "w.sample", None).read(0).y, y)


def test_a_window_without_batches_can_be_read(tmp_path: Path) -> None:
    with WindowWriter(tmp_path / "w.sample", header=header(0, residency=False, rows=False)) as writer:
        writer.close()
    window = Window.open(tmp_path / "w.sample", None)
    window.verify()
    assert (window.entries, window.largest_nbytes) == ((), 0)


def test_rows_may_come_later_in_turns_between_batches(tmp_path: Path) -> None:
    batches = packed_batches(3)
    with WindowWriter(tmp_path / "turns", header=header(3)) as writer:
        for batch in batches:
            writer.begin(batch.sampled, y=batch.y, residency=batch.residency)
        for first in range(0, 200, 7):
            for index, batch in enumerate(batches):
                assert batch.rows is not None
                if first < len(batch.rows):
                    writer.write_rows(index, first, batch.rows[first : first + 7])
        writer.close(INITIAL_SLOTS, FINAL_SLOTS)
    write_packed(tmp_path / "whole")
    assert (tmp_path / "turns").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_file_does_not_depend_on_how_often_it_is_flushed(tmp_path: Path) -> None:
    batches = packed_batches(3)
    write_packed(tmp_path / "rarely")
    with WindowWriter(tmp_path / "often", header=header(3), flush_bytes=1) as writer:
        for batch in batches:
            writer.add(batch.sampled, y=batch.y, residency=batch.residency, rows=batch.rows)
        writer.close(INITIAL_SLOTS, FINAL_SLOTS)
    assert (tmp_path / "often").read_bytes() == (tmp_path / "rarely").read_bytes()


def test_batches_are_views_into_the_buffer_that_is_given(tmp_path: Path) -> None:
    batches = write_packed(tmp_path / "w.pack")
    window = Window.open(tmp_path / "w.pack", None)
    buffer = aligned_empty(window.largest_nbytes)
    for index in (2, 0, 1):
        batch = window.read(index, buffer)
        assert same_arrays(batch, batches[index])
        assert batch.rows is not None
        assert np.shares_memory(batch.sampled.node, buffer)
        assert np.shares_memory(batch.rows, buffer)


def test_every_batch_and_its_rows_start_on_a_page(tmp_path: Path) -> None:
    write_packed(tmp_path / "w.pack")
    window = Window.open(tmp_path / "w.pack", None)
    buffer = aligned_empty(window.largest_nbytes)
    for index, entry in enumerate(window.entries):
        rows = window.read(index, buffer).rows
        assert rows is not None
        assert (rows.ctypes.data - buffer.ctypes.data) % PAGE == entry.offset % PAGE == entry.nbytes % PAGE == 0


def test_entries_say_where_a_batch_lies_and_how_much_it_holds(tmp_path: Path) -> None:
    batches = write_packed(tmp_path / "w.pack")
    for index, entry in enumerate(Window.open(tmp_path / "w.pack", None).entries):
        sampled, residency = batches[index].sampled, batches[index].residency
        assert residency is not None
        assert (entry.position, entry.epoch, entry.batch_id) == (30 + index, 2, index)
        assert (entry.num_nodes, entry.num_edges) == (sampled.num_nodes, sampled.num_edges)
        assert (entry.num_rows, entry.num_inserts) == (len(residency.fetch_node), len(residency.insert_row))


def test_threads_may_read_one_window_at_once(tmp_path: Path) -> None:
    batches = write_packed(tmp_path / "w.pack")
    window = Window.open(tmp_path / "w.pack", None)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(window.read, [0, 1, 2] * 20))
    assert all(same_arrays(batch, batches[index % 3]) for index, batch in enumerate(read))


def test_a_window_made_from_something_else_is_refused_by_both_names(tmp_path: Path) -> None:
    write_packed(tmp_path / "w.pack")
    other = "f" * 32
    with pytest.raises(StaleArtefactError, match=rf"w\.pack was made from {FINGERPRINT}, this run needs {other}"):
        Window.open(tmp_path / "w.pack", other)


def test_leaving_the_block_without_close_leaves_nothing(tmp_path: Path) -> None:
    with WindowWriter(tmp_path / "w.sample", header=header(2, residency=False, rows=False)) as writer:
        writer.add(sampled_batch(0))
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".w.pack.partial").write_bytes(b"x" * 1_000_000)
    write_packed(tmp_path / "w.pack")
    assert os.listdir(tmp_path) == ["w.pack"]
    Window.open(tmp_path / "w.pack", None).verify()


def test_a_window_that_lacks_batches_or_rows_is_not_closed(tmp_path: Path) -> None:
    batch = packed_batches(1)[0]
    with WindowWriter(tmp_path / "w.pack", header=header(2)) as writer:
        writer.begin(batch.sampled, residency=batch.residency)
        with pytest.raises(ValueError, match="1 parts are there, batch 0 of them without all rows"):
            writer.close(INITIAL_SLOTS, FINAL_SLOTS)


def test_rows_that_leave_a_gap_or_run_over_are_refused(tmp_path: Path) -> None:
    batch = packed_batches(1)[0]
    assert batch.rows is not None
    with WindowWriter(tmp_path / "w.pack", header=header(1)) as writer:
        writer.begin(batch.sampled, residency=batch.residency)
        for first, rows in ((1, batch.rows[1:]), (0, np.vstack([batch.rows, batch.rows]))):
            with pytest.raises(ValueError, match="do not follow"):
                writer.write_rows(0, first, rows)


def test_writing_keeps_the_ids_of_one_batch_in_memory_not_the_window(tmp_path: Path) -> None:
    sampled = sampled_batch(0, num_seeds=50_000)
    residency = residency_of(sampled)
    num_rows = len(residency.fetch_node)
    rows = np.ones((2000, ROW_NBYTES), np.uint8)
    before = rss_bytes()
    with measure("write") as report, WindowWriter(tmp_path / "w.pack", header=header(4)) as writer:
        for _ in range(4):
            batch = writer.begin(sampled, residency=residency)
            for first in range(0, num_rows, 2000):
                writer.write_rows(batch, first, rows[: num_rows - first])
        writer.close(INITIAL_SLOTS, FINAL_SLOTS)
    assert (tmp_path / "w.pack").stat().st_size > 120 << 20
    assert report.peak_rss_bytes - before < 40 << 20
