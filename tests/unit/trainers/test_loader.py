"""What a loader says of itself, and what it refuses."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.loading import MEMORY, START, Scene, scene

from graphsys.bench.belady import fewest_reads
from graphsys.core.errors import ConfigError, CorruptError, InputError, MemoryBudgetError
from graphsys.core.progress import SILENT
from graphsys.core.types import LoaderCursor
from graphsys.storage.features import MemoryFeatures
from graphsys.storage.window import Window
from graphsys.trainers.loader import Loader
from graphsys.trainers.plan import Mode
from graphsys.trainers.rows import open_reader


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture
def make(store: Path, tmp_path: Path) -> Callable[..., Scene]:
    def make_scene(**options: Any) -> Scene:
        return scene(store, tmp_path / "run", **options)

    return make_scene


@contextmanager
def opened(chosen: Scene, cursor: LoaderCursor = START) -> Iterator[Loader]:
    with (
        chosen.windows() as windows,
        closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader,
        Loader(windows, chosen.features, reader, cursor=cursor) as loader,
    ):
        if chosen.schedule.samples == "frozen":
            windows.prepare(SILENT)
        yield loader


@pytest.fixture
def our_threads() -> Callable[[], list[str]]:
    """Return what names the threads of graphsys that began since; a test before this one may have left some."""
    before = set(threading.enumerate())
    return lambda: [
        thread.name for thread in threading.enumerate() if thread not in before and thread.name.startswith("graphsys-")
    ]


def test_the_cursor_names_the_next_batch(make: Callable[..., Scene]) -> None:
    chosen = make()
    per_epoch = chosen.schedule.batches_per_epoch
    with opened(chosen) as loader:
        assert (len(loader), loader.cursor) == (2 * per_epoch, LoaderCursor(epoch=0, next_batch_id=0))
        for index, batch in enumerate(loader, start=1):
            assert (batch.epoch, batch.batch_id) == divmod(index - 1, per_epoch)
            epoch, batch_id = divmod(index, per_epoch)
            assert loader.cursor == LoaderCursor(epoch=epoch, next_batch_id=batch_id)


def test_a_cursor_at_the_end_gives_no_batch(make: Callable[..., Scene]) -> None:
    chosen = make()
    with opened(chosen, LoaderCursor(epoch=2, next_batch_id=0)) as loader:
        assert len(loader) == 0
        assert list(loader) == []
    assert not chosen.folder.exists()


def test_the_end_of_an_epoch_is_the_start_of_the_next(make: Callable[..., Scene]) -> None:
    chosen = make()
    with opened(chosen, LoaderCursor(epoch=0, next_batch_id=chosen.schedule.batches_per_epoch)) as loader:
        assert next(iter(loader)).epoch == 1


@pytest.mark.parametrize(
    "cursor",
    [
        LoaderCursor(epoch=2, next_batch_id=1),
        LoaderCursor(epoch=0, next_batch_id=99),
        LoaderCursor(epoch=-1, next_batch_id=0),
        LoaderCursor(epoch=0, next_batch_id=-1),
        LoaderCursor(epoch=0, next_batch_id=0, rank=1, world_size=2),
    ],
)
def test_a_cursor_outside_the_schedule_is_refused(make: Callable[..., Scene], cursor: LoaderCursor) -> None:
    with pytest.raises(ConfigError, match="outside a schedule of 2 epochs of 7 batches"), opened(make(), cursor):
        pass


def test_a_loader_is_iterated_once(make: Callable[..., Scene]) -> None:
    with opened(make(epochs=1)) as loader:
        assert len(list(loader)) == 7
        with pytest.raises(ValueError, match="iterated once"):
            next(iter(loader))


@pytest.mark.parametrize("mode", ["packed", "cached", "direct", "memory"])
@pytest.mark.parametrize("taken", [0, 5])
def test_leaving_early_ends_every_thread(
    make: Callable[..., Scene], mode: str, taken: int, our_threads: Callable[[], list[str]]
) -> None:
    with opened(make(mode=mode, epochs=50)) as loader:
        for _ in zip(range(taken), loader, strict=False):
            pass
    assert our_threads() == []


def test_breaking_out_of_the_loop_ends_the_loaders_threads(
    make: Callable[..., Scene], our_threads: Callable[[], list[str]]
) -> None:
    chosen = make(epochs=50)
    with chosen.windows() as windows, closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader:
        for _ in Loader(windows, chosen.features, reader):
            break
        assert [name for name in our_threads() if "assemble" in name or "read" in name] == []


@pytest.mark.parametrize(("mode", "hit"), [("memory", 1.0), ("direct", 0.0)])
def test_rows_from_memory_and_from_the_disk_are_counted(make: Callable[..., Scene], mode: str, hit: float) -> None:
    with opened(make(mode=mode, samples="frozen")) as loader:
        rows = sum(batch.x.shape[0] for batch in loader)
        stats = loader.stats
    assert stats.batches == 14
    assert stats.rows_hit == hit * rows
    assert stats.rows_fetched == rows - stats.rows_hit


@pytest.mark.parametrize("mode", ["packed", "cached"])
def test_a_cache_for_all_rows_fetches_each_row_once_per_window_chain(make: Callable[..., Scene], mode: str) -> None:
    with opened(make(mode=mode, num_slots=200, window_batches=1000)) as loader:
        batches = list(loader)
        stats = loader.stats
    nodes = np.unique(np.concatenate([batch.n_id.numpy() for batch in batches]))
    rows = sum(batch.x.shape[0] for batch in batches)
    assert stats.rows_fetched == nodes.size
    assert stats.rows_hit == rows - nodes.size
    ids = sum(8 * batch.n_id.numel() + 4 * (batch.indptr.numel() + batch.indices.numel()) for batch in batches)
    assert stats.useful_bytes == nodes.size * 8 * 4 + ids
    assert stats.read_bytes > stats.useful_bytes


@pytest.mark.parametrize("mode", ["packed", "cached"])
def test_frozen_epochs_find_the_rows_of_the_epoch_before(make: Callable[..., Scene], mode: str) -> None:
    with opened(make(mode=mode, samples="frozen", num_slots=200, window_batches=7, look_ahead=7, epochs=3)) as loader:
        batches = list(loader)
        stats = loader.stats
    nodes = np.unique(np.concatenate([batch.n_id.numpy() for batch in batches]))
    assert stats.rows_fetched == 0
    assert stats.rows_loaded == nodes.size  # once, before the first batch
    assert stats.rows_hit == sum(batch.x.shape[0] for batch in batches)
    assert stats.useful_bytes > nodes.size * 8 * 4


def test_frozen_epochs_that_follow_one_another_read_little_more_than_one_plan_of_all_would(
    make: Callable[..., Scene],
) -> None:
    chosen = make(samples="frozen", num_slots=40, window_batches=4, look_ahead=4, epochs=6)
    with opened(chosen) as loader:
        trace = [batch.n_id.numpy() for batch in loader]
        stats = loader.stats
    fewest = fewest_reads(trace, num_nodes=chosen.features.shape[0], num_slots=40)
    assert fewest <= stats.rows_fetched + stats.rows_loaded <= 1.02 * fewest


def test_a_flipped_byte_in_the_rows_that_an_epoch_starts_with_is_found(make: Callable[..., Scene]) -> None:
    chosen = make(samples="frozen", num_slots=200, window_batches=7, look_ahead=7)
    with chosen.windows() as windows:
        windows.prepare(SILENT)
    path = chosen.folder / "window-0000.pack"
    window = Window.open(path, None)
    rows = np.concatenate([part.copy() for part in window.initial_rows(1 << 20)])
    content = bytearray(path.read_bytes())
    content[content.index(rows.tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="the initial rows is corrupt"):
        Window.open(path, None).verify()
    with opened(chosen) as loader, pytest.raises(CorruptError, match="the initial rows is corrupt"):
        list(loader)


def test_waits_are_counted_in_seconds(make: Callable[..., Scene]) -> None:
    with opened(make()) as loader:
        list(loader)
        stats = loader.stats
    assert stats.wait_s == pytest.approx(sum(stats.waits().values()))
    assert stats.wait_producer_s > 0  # for the first window
    assert all(seconds >= 0 for seconds in stats.waits().values())


def test_batches_do_not_share_memory(make: Callable[..., Scene]) -> None:
    with opened(make(samples="frozen")) as loader:
        batches = list(loader)
    tensors = [tensor for batch in batches for tensor in (batch.x, batch.n_id, batch.indices, batch.indptr)]
    starts = sorted((tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in tensors if tensor.nbytes)
    assert all(end <= start for (_, end), (start, _) in pairwise(starts))
    assert all(batch.x.data_ptr() % 64 == 0 for batch in batches)


def test_a_schedule_without_nodes_gives_no_batch(make: Callable[..., Scene]) -> None:
    chosen = make()
    chosen = replace(chosen, schedule=replace(chosen.schedule, nodes=np.empty(0, np.int64)))
    assert chosen.batches() == []


def test_features_larger_than_their_memory_are_refused(make: Callable[..., Scene]) -> None:
    chosen = make(mode="memory")
    with pytest.raises(MemoryBudgetError, match=r"takes 6\.25 KiB and 4\.00 KiB of the memory budget are left"):
        open_reader(chosen.features, chosen.plan, memory=4096)


def test_mode_memory_reads_all_rows_through_the_codec(make: Callable[..., Scene]) -> None:
    chosen = make(mode="memory", codec="float16")
    reader = open_reader(chosen.features, chosen.plan, memory=MEMORY)
    assert isinstance(reader, MemoryFeatures)
    out = np.empty(chosen.features.shape, np.float32)
    reader.gather(np.arange(out.shape[0]), out)
    assert np.array_equal(out, chosen.features.read().astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("mode", ["packed", "cached", "direct", "memory"])
def test_a_value_beyond_the_codec_is_named_in_every_mode(
    tmp_path: Path, mode: Mode, our_threads: Callable[[], list[str]]
) -> None:
    chosen = scene(tiny_store(tmp_path, num_nodes=70_000, num_edges=70_000), tmp_path / "run", mode=mode,
                   codec="float16", batch_size=5000)  # fmt: skip
    with pytest.raises(InputError, match=r"of node 6\d+ is 6\d+.*, beyond float16"):
        chosen.batches()
    assert our_threads() == []
