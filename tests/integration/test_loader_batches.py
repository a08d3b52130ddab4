"""The same batches, bit by bit, whatever the mode, the threads, the place a run starts from."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.loading import MEMORY, Scene, same, same_runs, scene

from graphsys.core.progress import SILENT
from graphsys.core.types import BatchKey, LoaderCursor
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.storage.codec import decode, encode
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.loader import Loader
from graphsys.trainers.plan import Mode
from graphsys.trainers.rows import open_reader

MODES: tuple[Mode, ...] = ("memory", "direct", "cached", "packed")
NUM_NODES = 300


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    return tiny_store(folder, num_nodes=NUM_NODES, num_edges=3000, num_features=9)


@pytest.fixture
def make(store: Path, tmp_path: Path) -> Callable[..., Scene]:
    def make_scene(mode: Mode = "packed", **options: Any) -> Scene:
        return scene(store, tmp_path / "run", mode=mode, **options)

    return make_scene


@pytest.fixture(scope="module")
def expected(store: Path, tmp_path_factory: pytest.TempPathFactory) -> list[MiniBatch]:
    return scene(store, tmp_path_factory.mktemp("expected"), mode="memory").batches(threads=1)


@pytest.mark.parametrize(("mode", "threads"), list(product(MODES, (1, 2))))
def test_fresh_batches_agree_in_every_mode_and_with_any_number_of_threads(
    make: Callable[..., Scene], expected: list[MiniBatch], mode: Mode, threads: int
) -> None:
    assert same_runs(make(mode, threads=threads).batches(threads=threads), expected)


@pytest.mark.parametrize("mode", MODES)
def test_frozen_batches_are_those_of_the_first_epoch_again_and_again(
    make: Callable[..., Scene], expected: list[MiniBatch], mode: Mode
) -> None:
    frozen = make(mode, samples="frozen", epochs=3)
    found, per_epoch = frozen.batches(), frozen.schedule.batches_per_epoch
    assert len(found) == 3 * per_epoch
    for index, batch in enumerate(found):
        assert batch.epoch == index // per_epoch
        assert same(replace(batch, epoch=0), expected[index % per_epoch])


@pytest.mark.parametrize("window_batches", [1, 4, 7, 1000])
@pytest.mark.parametrize("num_slots", [0, 7, NUM_NODES])
def test_batches_depend_on_neither_window_nor_cache_size(
    make: Callable[..., Scene], expected: list[MiniBatch], window_batches: int, num_slots: int
) -> None:
    assert same_runs(make(window_batches=window_batches, num_slots=num_slots).batches(), expected)


def test_a_batch_is_what_the_sampler_and_the_store_say(make: Callable[..., Scene], expected: list[MiniBatch]) -> None:
    chosen = make()
    topology = chosen.store.topology(("node", "to", "node"))
    x, y = chosen.features.read(), chosen.store.labels("node")
    for position, batch in enumerate(expected):
        seeds = chosen.schedule.seeds(position)
        key = BatchKey(seed=0, epoch=seeds.epoch, batch_id=seeds.batch_id)
        sampled = sample_neighbors(topology, seeds.node, (3, 2), key=key, with_degree=True)
        assert same(batch, MiniBatch.assemble(sampled, x[sampled.node], y[seeds.node], epoch=seeds.epoch))


@pytest.mark.parametrize("codec", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("mode", MODES)
def test_a_codec_gives_the_same_values_in_every_mode(
    make: Callable[..., Scene], expected: list[MiniBatch], mode: Mode, codec: str
) -> None:
    chosen = make(mode, codec=codec, samples="frozen")
    for batch, exact in zip(chosen.batches(), 2 * expected[: chosen.schedule.batches_per_epoch], strict=True):
        x = exact.x.numpy()
        assert batch.x.numpy().tobytes() == decode(encode(x, codec), x.shape[1], codec).tobytes()


@pytest.mark.parametrize("dim", [1, 3, 7, 31, 32, 33, 130])
def test_rows_of_any_width_arrive_whole(tmp_path: Path, dim: int) -> None:
    store = tiny_store(tmp_path, num_features=dim)
    for mode in ("packed", "cached", "direct"):
        for batch in scene(store, tmp_path / mode, mode=mode, epochs=1, samples="frozen").batches():
            assert np.array_equal(batch.x.numpy(), (batch.n_id.numpy()[:, None] + np.arange(dim) / 1024))


@pytest.mark.parametrize("mode", ["packed", "cached"])
@pytest.mark.parametrize("samples", ["fresh", "frozen"])
def test_a_run_may_start_at_any_batch(
    make: Callable[..., Scene], mode: Mode, samples: Literal["fresh", "frozen"]
) -> None:
    chosen = make(mode, samples=samples, threads=1)
    everything, per_epoch = chosen.batches(), chosen.schedule.batches_per_epoch
    # Fresh windows take a new process for every start.
    for start in range(0, len(everything) + 1, 7 if samples == "fresh" else 1):
        cursor = LoaderCursor(epoch=start // per_epoch, next_batch_id=start % per_epoch)
        assert same_runs(chosen.batches(cursor), everything[start:])


@pytest.mark.parametrize("mode", ["packed", "cached", "direct"])
@pytest.mark.parametrize(("samples", "stride"), [("fresh", 6), ("frozen", 1), ("frozen", 4)])
def test_a_run_broken_off_again_and_again_loses_and_repeats_no_batch(
    make: Callable[..., Scene], expected: list[MiniBatch], mode: Mode, samples: Literal["fresh", "frozen"], stride: int
) -> None:
    chosen = make(mode, samples=samples)
    per_epoch = chosen.schedule.batches_per_epoch
    found: list[MiniBatch] = []
    cursor = LoaderCursor(epoch=0, next_batch_id=0)
    while cursor.epoch < chosen.schedule.epochs:
        with (
            chosen.windows() as windows,
            closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader,
            Loader(windows, chosen.features, reader, cursor=cursor) as loader,
        ):
            windows.prepare(SILENT, len(found) // chosen.plan.window_batches if samples == "fresh" else 0)
            for _, batch in zip(range(stride), loader, strict=False):
                found.append(batch)
            cursor = LoaderCursor(epoch=len(found) // per_epoch, next_batch_id=len(found) % per_epoch)
    if samples == "fresh":
        assert same_runs(found, expected)
    else:
        assert same_runs(found, chosen.batches())


@pytest.mark.parametrize("mode", ["packed", "cached"])
def test_several_loaders_in_turn_share_one_set_of_windows(make: Callable[..., Scene], mode: Mode) -> None:
    chosen = make(mode, samples="frozen", epochs=1)
    with chosen.windows() as windows, closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader:
        runs = [list(Loader(windows, chosen.features, reader)) for _ in range(3)]
    assert same_runs(runs[0], runs[1])
    assert same_runs(runs[0], runs[2])
