"""Seconds of a training epoch out of core, beside the same code with everything in memory."""

import shutil
import time
from collections.abc import Mapping
from statistics import median
from typing import Literal

from graphsys.bench.graph import drop_pages
from graphsys.bench.result import Measured
from graphsys.bench.setting import Setting
from graphsys.core.progress import Progress
from graphsys.core.units import GIB
from graphsys.trainers.fit import fit

EPOCHS = 3


def memory_bytes(setting: Setting) -> int:
    """Return a budget that holds features, topology and all buffers."""
    store, name = setting.open_store()
    topology = store.topology_nbytes(store.edge_type_within(name))
    return store.features(name).spec.nbytes + topology + setting.memory + 2 * GIB


def measure_memory_frozen(setting: Setting, progress: Progress) -> Measured:
    """Measure epochs with features and topology in memory and the first epoch's samples."""
    return _measure(setting, progress, "memory", "frozen")


def measure_memory_fresh(setting: Setting, progress: Progress) -> Measured:
    """Measure epochs with features and topology in memory and new samples every epoch."""
    return _measure(setting, progress, "memory", "fresh")


def measure_packed_frozen(setting: Setting, progress: Progress) -> Measured:
    """Measure epochs from packed windows that are made once."""
    return _measure(setting, progress, "packed", "frozen")


def measure_packed_fresh(setting: Setting, progress: Progress) -> Measured:
    """Measure epochs from packed windows that are made while training goes on."""
    return _measure(setting, progress, "packed", "fresh")


def _measure(
    setting: Setting, progress: Progress, mode: Literal["memory", "packed"], samples: Literal["frozen", "fresh"]
) -> Measured:
    budget = memory_bytes(setting) if mode == "memory" else setting.memory
    epochs = max(EPOCHS, setting.rounds + 1) if samples == "frozen" else EPOCHS
    run = setting.run(f"{mode}-{samples}", epochs=epochs, mode=mode, samples=samples, memory=budget)
    drop_pages(setting.store)
    started = time.perf_counter()
    trained = fit(run, progress=progress)
    whole = time.perf_counter() - started
    report = trained.stages["train"]
    shutil.rmtree(run.out)
    # The first epoch also sets up torch and compiled kernels; with fresh samples it waits for the first window.
    return Measured(
        rounds=trained.epoch_s[1:],
        details={
            "epochs_s": sum(trained.epoch_s[:EPOCHS]),
            "whole_s": whole,
            "prepare_and_overlap_s": {name: trained.stages[name].seconds for name in ("sample", "pack")},
            "train_loss": [record.train["loss"] for record in trained.history],
            "useful_bytes": report.useful_bytes,
            "read_bytes": report.device_bytes_read,
            "waits_s": {key: value for key, value in report.details["loader"].items() if key.startswith("wait")},
        },
        peak_memory_bytes={name: stage.peak_rss_bytes for name, stage in trained.stages.items()},
    )


def summarize(found: Mapping[str, Measured]) -> Measured:
    """Return the frozen out-of-core epoch; the limit is the same epoch with everything in memory."""
    packed, memory = found["packed frozen"], found["memory frozen"]
    fresh, fresh_memory = found["packed fresh"], found["memory fresh"]
    return Measured(
        rounds=packed.rounds,
        limit=memory.value,
        details={
            "over_memory": packed.value / memory.value,
            "fresh_over_memory": fresh.details["epochs_s"] / fresh_memory.details["epochs_s"],
            "fresh_over_memory_with_start": fresh.details["whole_s"] / fresh_memory.details["whole_s"],
            "fresh_epoch_s": median(fresh.rounds),
            "limit_is": "the epoch of the same code with features and topology in memory",
            **{name: {"rounds": list(part.rounds), **part.details} for name, part in found.items()},
        },
        peak_memory_bytes={
            f"{stage}, {name}": nbytes
            for name, part in found.items()
            for stage, nbytes in part.peak_memory_bytes.items()
        },
    )
