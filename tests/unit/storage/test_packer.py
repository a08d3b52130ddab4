"""Packing: samples in, a window with residency and rows out."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.loading import CountingTask, flat, id_rows, random_trace, write_samples

from graphsys.core.errors import CorruptError, DiskError, InputError, MemoryBudgetError
from graphsys.core.types import NodeIds
from graphsys.core.units import KIB, MIB
from graphsys.storage.codec import CODECS, encode, row_nbytes
from graphsys.storage.features import ReadCount
from graphsys.storage.flat import FlatArray
from graphsys.storage.packer import pack_nbytes, pack_window
from graphsys.storage.window import Window

NUM_NODES = 3000


def _empty(num_slots: int) -> NodeIds:
    return np.full(num_slots, -1, np.int64)


def _pack(
    folder: Path,
    features: FlatArray,
    *,
    num_slots: int = 200,
    codec: str = "float32",
    with_rows: bool = True,
    memory: int = 32 * MIB,
    task: CountingTask | None = None,
    name: str = "window.pack",
) -> tuple[Window, ReadCount]:
    count = pack_window(
        folder / "window.sample",
        folder / name,
        features,
        num_slots=num_slots,
        initial_slots=_empty(num_slots),
        codec=codec,
        with_rows=with_rows,
        memory=memory,
        fingerprint="def",
        task=task,
    )
    return Window.open(folder / name, "def"), count


@pytest.mark.parametrize("dim", [1, 3, 31, 32, 33, 130])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("num_slots", [0, 200])
def test_every_batch_gets_the_rows_that_its_plan_fetches(tmp_path: Path, dim: int, codec: str, num_slots: int) -> None:
    x, trace = id_rows(NUM_NODES, dim), random_trace(12, NUM_NODES, 150)
    write_samples(tmp_path / "window.sample", trace)
    window, count = _pack(tmp_path, flat(tmp_path / "x", x), codec=codec, num_slots=num_slots)
    slots, fetched = window.initial_slots().copy(), 0
    for index, node in enumerate(trace):
        batch = window.read(index)
        residency = batch.residency
        assert residency is not None
        assert batch.rows is not None
        assert np.array_equal(batch.sampled.node, node)
        assert np.array_equal(batch.sampled.indices, np.arange(1, node.size))
        assert batch.y is not None
        assert batch.y.tolist() == [node[0]]
        assert np.array_equal(batch.rows, encode(x[residency.fetch_node], codec))
        held = np.concatenate([residency.fetch_node, slots[::-1]])  # ~slot counts from the end
        assert np.array_equal(held[residency.source], node)
        slots[residency.insert_slot] = residency.fetch_node[residency.insert_row]
        fetched += residency.fetch_node.size
    assert np.array_equal(slots, window.final_slots())
    assert count.useful_bytes == fetched * dim * 4
    window.verify()


def test_the_header_says_how_rows_are_kept(tmp_path: Path) -> None:
    write_samples(tmp_path / "window.sample", random_trace(2, NUM_NODES, 20))
    window, _ = _pack(tmp_path, flat(tmp_path / "x", id_rows(NUM_NODES, 5)), codec="float16")
    header = window.header
    assert (header.window_index, header.first_position, header.num_batches) == (3, 70, 2)
    assert (header.dim, header.codec, header.row_nbytes) == (5, "float16", row_nbytes(5, "float16"))
    assert (header.num_slots, header.has_residency, header.has_rows) == (200, True, True)


def test_the_bytes_do_not_depend_on_the_memory(tmp_path: Path) -> None:
    trace = random_trace(20, 30_000, 2000)
    write_samples(tmp_path / "window.sample", trace)
    features = flat(tmp_path / "x", id_rows(30_000, 40))
    least = pack_nbytes(sum(map(len, trace)), 200, len(trace)) + 100 * KIB
    large, _ = _pack(tmp_path, features, memory=64 * MIB, name="large.pack")
    small, _ = _pack(tmp_path, features, memory=least, name="small.pack")
    assert large.path.read_bytes() == small.path.read_bytes()


def test_a_dense_window_reads_the_features_about_once(tmp_path: Path) -> None:
    write_samples(tmp_path / "window.sample", random_trace(20, 20_000, 4000))
    features = flat(tmp_path / "x", id_rows(20_000, 130))
    _, count = _pack(tmp_path, features, num_slots=0)
    assert count.read_bytes <= 1.05 * features.spec.nbytes
    assert count.useful_bytes > 2 * count.read_bytes


def test_without_rows_the_window_says_which_rows_to_fetch(tmp_path: Path) -> None:
    trace = random_trace(4, NUM_NODES, 50)
    write_samples(tmp_path / "window.sample", trace)
    window, count = _pack(tmp_path, flat(tmp_path / "x", id_rows(NUM_NODES, 5)), with_rows=False)
    first = window.read(0)
    assert first.rows is None
    assert first.residency is not None
    assert np.array_equal(first.residency.fetch_node, np.sort(trace[0]))
    assert count.read_bytes == 0


def test_the_next_window_starts_with_what_this_one_left(tmp_path: Path) -> None:
    write_samples(tmp_path / "window.sample", random_trace(8, NUM_NODES, 150))
    features = flat(tmp_path / "x", id_rows(NUM_NODES, 5))
    window, _ = _pack(tmp_path, features)
    write_samples(tmp_path / "next.sample", random_trace(8, NUM_NODES, 150, seed=1))
    pack_window(
        tmp_path / "next.sample", tmp_path / "next.pack", features, num_slots=200,
        initial_slots=window.final_slots(), codec="float32", with_rows=True, memory=32 * MIB, fingerprint="def",
    )  # fmt: skip
    following = Window.open(tmp_path / "next.pack", "def")
    assert np.array_equal(following.initial_slots(), window.final_slots())
    assert following.entries[0].num_rows < following.entries[0].num_nodes


@pytest.mark.parametrize("with_rows", [True, False])
@pytest.mark.parametrize("num_batches", [1, 5])
def test_progress_adds_up_to_the_batches(tmp_path: Path, with_rows: bool, num_batches: int) -> None:
    write_samples(tmp_path / "window.sample", random_trace(num_batches, NUM_NODES, 50))
    task = CountingTask()
    _pack(tmp_path, flat(tmp_path / "x", id_rows(NUM_NODES, 5)), with_rows=with_rows, task=task)
    assert task.done == pytest.approx(num_batches)


def test_a_window_that_fetches_nothing_is_packed(tmp_path: Path) -> None:
    write_samples(tmp_path / "window.sample", [np.array([4, 7])])
    task = CountingTask()
    pack_window(
        tmp_path / "window.sample", tmp_path / "window.pack", flat(tmp_path / "x", id_rows(9, 3)), num_slots=3,
        initial_slots=np.array([7, -1, 4]), codec="float32", with_rows=True, memory=8 * MIB, fingerprint="def",
        task=task,
    )  # fmt: skip
    batch = Window.open(tmp_path / "window.pack", "def").read(0)
    assert batch.rows is not None
    assert batch.rows.shape == (0, 16)
    assert task.done == 1


def test_a_value_beyond_the_codec_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    write_samples(tmp_path / "window.sample", [np.array([5, 2, 900, 70])])
    x = id_rows(NUM_NODES, 3)
    x[70, 1] = -1e6
    with pytest.raises(InputError, match="feature 1 of node 70 is -1e"):
        _pack(tmp_path, flat(tmp_path / "x", x), codec="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["window.sample", "x"]


def test_a_memory_budget_too_small_says_what_it_takes(tmp_path: Path) -> None:
    write_samples(tmp_path / "window.sample", random_trace(4, NUM_NODES, 500))
    with pytest.raises(MemoryBudgetError, match=r"4 batches with 2000 rows and 200 cache slots, needs 2\.\d+ MiB"):
        _pack(tmp_path, flat(tmp_path / "x", id_rows(NUM_NODES, 5)), memory=MIB)
    assert not (tmp_path / "window.pack").exists()


def test_a_flipped_byte_in_the_samples_is_found(tmp_path: Path) -> None:
    write_samples(tmp_path / "window.sample", random_trace(4, NUM_NODES, 500))
    sample = Window.open(tmp_path / "window.sample", None)
    with sample.path.open("r+b") as file:
        file.seek(sample.entries[2].offset + sample.entries[2].head_nbytes - 9)
        file.write(b"\xff")
    with pytest.raises(CorruptError, match="batch 2 is corrupt"):
        _pack(tmp_path, flat(tmp_path / "x", id_rows(NUM_NODES, 5)))


def test_a_truncated_feature_file_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    write_samples(tmp_path / "window.sample", random_trace(4, NUM_NODES, 500))
    features = flat(tmp_path / "x", id_rows(NUM_NODES, 33))
    os.truncate(features.path, 50_000)
    with pytest.raises(CorruptError, match="is truncated"):
        _pack(tmp_path, features)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["window.sample", "x"]


@pytest.mark.parametrize("after", [0, 3, 4, 9, 14])
def test_a_disk_that_fills_up_while_rows_are_written_leaves_the_samples_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    write_samples(tmp_path / "window.sample", random_trace(4, NUM_NODES, 500))
    features = flat(tmp_path / "x", id_rows(NUM_NODES, 130))
    real, left = os.pwrite, iter(range(after))

    def pwrite(fileno: int, content: memoryview, offset: int) -> int:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fileno, content, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        least = pack_nbytes(2000, 200, 10) + 300 * KIB  # several stages: some rows are in the file already
        with pytest.raises(DiskError, match=r"window\.pack: the disk is full"):
            _pack(tmp_path, features, memory=least)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["window.sample", "x"]
    window, _ = _pack(tmp_path, features)
    window.verify()


def test_many_batches_with_few_rows_each_fit_their_stages(tmp_path: Path) -> None:
    # Batches whose rows are all written, or not met yet, take no room in a stage, wherever in a page they stopped.
    trace = [np.array([3 * index, 3 * index + 1, 3 * index + 2]) for index in range(900)]
    write_samples(tmp_path / "window.sample", trace)
    features = flat(tmp_path / "x", id_rows(2700, 33))
    large, _ = _pack(tmp_path, features, num_slots=0, memory=64 * MIB, name="large.pack")
    small, _ = _pack(tmp_path, features, num_slots=0, memory=pack_nbytes(2700, 0, 900) + 100 * KIB, name="small.pack")
    assert small.path.read_bytes() == large.path.read_bytes()
    small.verify()


def test_rows_that_are_streamed_into_their_batches_are_those_that_are_copied(tmp_path: Path) -> None:
    # 160 columns are ten whole lines; a stage of 4 MiB or more is filled past the processor's caches.
    write_samples(tmp_path / "window.sample", random_trace(12, NUM_NODES, 1500))
    features = flat(tmp_path / "x", id_rows(NUM_NODES, 160))
    streamed, _ = _pack(tmp_path, features, num_slots=0, memory=64 * MIB, name="streamed.pack")
    copied, _ = _pack(tmp_path, features, num_slots=0, memory=pack_nbytes(18_000, 0, 12) + 4 * MIB, name="copied.pack")
    assert streamed.path.read_bytes() == copied.path.read_bytes()
    streamed.verify()
