"""Seconds to load epochs of packed windows, without training: the steady state of frozen samples, and fresh samples."""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from graphsys.bench.belady import fewest_reads
from graphsys.bench.graph import drop_pages
from graphsys.bench.result import Measured
from graphsys.bench.sampler import batches_of
from graphsys.bench.setting import Setting
from graphsys.core.config import RunConfig
from graphsys.core.metrics import device_bytes, measure
from graphsys.core.progress import Progress
from graphsys.core.types import LoaderCursor, NodeIds
from graphsys.core.units import MIB
from graphsys.storage.direct import DirectFile, align_up, aligned_empty
from graphsys.storage.store import Store
from graphsys.trainers.feed import WindowFeed
from graphsys.trainers.objective import training_nodes
from graphsys.trainers.run_folder import RunFolder

_START = LoaderCursor(epoch=0, next_batch_id=0)
_READERS = 2
_BLOCK_BYTES = 8 * MIB
FRESH_EPOCHS = 3


def measure_loader(setting: Setting, progress: Progress) -> Measured:
    """Measure the epochs after the first; the limit is their device bytes at the disk's sequential direct speed."""
    run = setting.run("loader", epochs=setting.rounds + 1, mode="packed", samples="frozen")
    store, name = setting.open_store()
    node = training_nodes(store, name)
    with open_feed(run, store, node) as feed:
        with measure("prepare") as prepared:
            feed.prepare(progress, _START)
        drop_pages(setting.store)
        folder = RunFolder(run.out).windows("train")
        before = _sequential_speed(folder)
        with measure("load") as loading:
            seconds, read = _epochs(feed)
        after = _sequential_speed(folder)
        stats, plan = feed.stats(), feed.plans.train
    per_epoch = sum(read[1:]) / (len(read) - 1)
    bandwidth = (before + after) / 2
    epochs = run.trainer.epochs
    trace = _trace(setting, store, name, node)
    num_nodes = store.node_types[name].num_nodes
    fewest = fewest_reads(trace * epochs, num_nodes=num_nodes, num_slots=plan.num_slots)
    return Measured(
        rounds=tuple(seconds[1:]),
        limit=per_epoch / bandwidth,
        details={
            "first_epoch_s": seconds[0],
            "device_bytes_per_epoch": per_epoch,
            "device_over_useful": sum(read) / max(stats.useful_bytes, 1),
            "rows_per_epoch": (stats.rows_hit + stats.rows_fetched) / epochs,
            "rows_read_per_epoch": (stats.rows_fetched + stats.rows_loaded) / epochs,
            "rows_over_belady": (stats.rows_fetched + stats.rows_loaded) / max(fewest, 1),
            "cache_rows": plan.num_slots,
            "window_batches": plan.window_batches,
            "sequential_read_bytes_s": bandwidth,
            "prepare_s": prepared.seconds,
            "waits_s": stats.waits(),
            "limit_is": "device bytes of an epoch at the speed of reading the windows from front to back in this run",
        },
        peak_memory_bytes={"prepare": prepared.peak_rss_bytes, "load": loading.peak_rss_bytes},
    )  # fmt: skip


def measure_fresh_loader(setting: Setting, progress: Progress) -> Measured:
    """Measure three epochs of fresh samples from a cold start: sampling, packing and loading together."""
    run = setting.run("fresh-loader", epochs=FRESH_EPOCHS, mode="packed", samples="fresh")
    store, name = setting.open_store()
    node = training_nodes(store, name)
    drop_pages(setting.store)
    started = time.perf_counter()
    with measure("fresh") as report, open_feed(run, store, node) as feed:
        feed.prepare(progress, _START)
        with feed.train(_START) as batches:
            count = sum(1 for _ in batches)
        stats = feed.stats()
    seconds = time.perf_counter() - started
    return Measured(
        rounds=(seconds,),
        details={"batches": count, "waits_s": stats.waits(), "device_bytes_read": report.device_bytes_read},
        peak_memory_bytes={"fresh": report.peak_rss_bytes},
    )


def summarize(found: Mapping[str, Measured]) -> Measured:
    """Return the steady epoch of frozen samples; three epochs of fresh ones are among its details."""
    frozen, fresh = found["load"], found["fresh"]
    details = {"seconds": fresh.value, "epochs": FRESH_EPOCHS, **fresh.details}
    return replace(
        frozen,
        details={**frozen.details, "fresh": details},
        peak_memory_bytes={**frozen.peak_memory_bytes, **fresh.peak_memory_bytes},
    )


def open_feed(run: RunConfig, store: Store, node: NodeIds) -> AbstractContextManager[WindowFeed]:
    """Open the batches of a run as training opens them."""
    return WindowFeed(run, store, node, with_degree=False, device=torch.device("cpu"), overwrite=False)


def _sequential_speed(folder: Path) -> float:
    """Return the bytes per second of reading the files of ``folder`` from front to back by two direct reads at a time.

    A file of its own would not do: a shared disk may read what was just written at another speed.
    """
    paths = sorted(folder.iterdir())
    started = time.perf_counter()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="graphsys-bench") as pool:
        nbytes = sum(pool.map(_read_part, paths * _READERS, sorted(list(range(_READERS)) * len(paths))))
    return nbytes / (time.perf_counter() - started)


def _read_part(path: Path, reader: int) -> int:
    """Read every block of a file whose number is ``reader``, counted modulo the readers; return the bytes."""
    buffer, done = aligned_empty(_BLOCK_BYTES), 0
    with DirectFile(path) as file:
        for offset in range(reader * _BLOCK_BYTES, file.nbytes, _READERS * _BLOCK_BYTES):
            block = buffer[: min(_BLOCK_BYTES, align_up(file.nbytes - offset))]
            file.read_into(offset, block)
            done += block.nbytes
    return done


def _epochs(feed: WindowFeed) -> tuple[list[float], list[int]]:
    """Go through all batches; return the seconds and the device bytes of every epoch."""
    seconds, read = [], []
    started, before = time.perf_counter(), device_bytes()[0]
    with feed.train(_START) as batches:
        for count, _ in enumerate(batches, start=1):
            if count % feed.steps_per_epoch == 0:
                now, total = time.perf_counter(), device_bytes()[0]
                seconds.append(now - started)
                read.append(total - before)
                started, before = now, total
    return seconds, read


def _trace(setting: Setting, store: Store, name: str, node: NodeIds) -> list[npt.NDArray[np.int32]]:
    """Return the ids that each batch of an epoch accesses, sampled anew and not taken from the windows."""
    topology = store.topology(store.edge_type_within(name), in_memory=True)
    return [batch.node.astype(np.int32) for batch in batches_of(setting, topology, node)]
