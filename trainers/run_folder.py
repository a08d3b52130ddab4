"""Where a run writes what, and which of its settings an earlier run must share to be continued."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphsys.core.config import RunConfig
from graphsys.storage.run_file import RESULT_NAME, RUN_FILE_NAME, write_run_file

# Settings that change how a run computes, not what it computes.
_FREE_TRAINER_KEYS = {"checkpoint_every", "device", "threads"}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths below ``run.out``; nothing is created by asking for one."""

    out: Path

    @property
    def config(self) -> Path:
        """The resolved config of the last training, as YAML."""
        return self.out / RUN_FILE_NAME

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.out / "checkpoints"

    @property
    def inference(self) -> Path:
        """Folder of the layer outputs of all nodes."""
        return self.out / "inference"

    @property
    def logs(self) -> Path:
        """Folder of ``metrics.jsonl`` and ``tensorboard/``."""
        return self.out / "logs"

    @property
    def result(self) -> Path:
        """What the run measured, as sealed JSON."""
        return self.out / RESULT_NAME

    @property
    def store_checked(self) -> Path:
        """Which version of the store's files was found unchanged, as sealed JSON; no artefact, for it is of no use
        elsewhere.
        """
        return self.out / "store-checked.json"

    @property
    def embeddings(self) -> Path:
        """Default place of the embedding table."""
        return self.out / "embeddings.gs"

    @property
    def partition(self) -> Path:
        """Which node is in which chunk, for training by parts of the graph."""
        return self.out / "partition"

    def windows(self, split: str, *, rank: int = 0, world_size: int = 1) -> Path:
        """Folder of the windows of a split ("train" or "val"), or of one worker's share of it."""
        parent = self.out / "windows"
        return parent / split if world_size == 1 else parent / f"rank-{rank}" / split

    @property
    def cluster(self) -> Path:
        """Folder of what the workers of a training tell the program that started them."""
        return self.out / "cluster"


def write_config(run: RunConfig) -> None:
    """Write the resolved config beside the run's outputs, atomically."""
    write_run_file(RunFolder(run.out).config, run)


def training_identity(run: RunConfig) -> dict[str, Any]:
    """Return the settings that decide the weights a run ends with, as plain JSON values.

    Paths, budgets, threads, the device and the way features travel are left out: they may differ between a run and its
    continuation. The store is named by its fingerprint elsewhere.
    """
    tree = run.resolved()
    trainer = {key: value for key, value in tree["trainer"].items() if key not in _FREE_TRAINER_KEYS}
    sampler = {key: value for key, value in tree["sampler"].items() if key != "threads"}
    return {
        "task": tree["task"],
        "sampler": sampler,
        "pack": {"codec": tree["pack"]["codec"]},
        "model": {**tree["model"], "num_layers": run.num_layers},
        "trainer": trainer,
    }


def differing_keys(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one "key old -> new" per leaf in which two trees of settings differ."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differing_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} {before!r} -> {after!r}")
    return found
