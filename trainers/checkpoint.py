"""Checkpoints: everything that training needs to go on, and the weights that it ended with.

A checkpoint is a folder ``step-00000100/`` of ``state.pt`` (tensors, numbers and strings only, keyed by layer and
parameter name, never by rank) and ``manifest.json``. It appears whole or not at all.
"""

import io
import pickle
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from graphsys.core.config import RunConfig
from graphsys.core.errors import ArtefactError, CorruptError
from graphsys.core.types import LoaderCursor
from graphsys.storage.files import atomic_folder, disk_errors, remove_artefact, remove_path
from graphsys.storage.flat import FlatSpec
from graphsys.storage.manifest import Manifest, file_checksum, read_manifest, verify_folder, write_manifest
from graphsys.trainers.curve import EpochRecord, best_epoch
from graphsys.trainers.run_folder import RunFolder, training_identity

KIND = "checkpoint"
STATE_NAME = "state.pt"
KEEP = 2  # checkpoints kept to resume from

_NAME = re.compile(r"^step-(\d{8,})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint in memory, on the CPU."""

    path: Path
    manifest: Manifest
    state: dict[str, Any]  # model, optimizer, best, progress, ...: what fit() saved

    @property
    def fingerprint(self) -> str:
        """32 hex digits that depend on every byte of the checkpoint."""
        return self.manifest.fingerprint

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return int(self.manifest.content["step"])

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return int(self.manifest.content["epoch"])

    @property
    def cursor(self) -> LoaderCursor:
        """The first batch that no worker took."""
        return LoaderCursor(**self.manifest.content["cursor"])

    @property
    def final(self) -> bool:
        """Whether training had ended."""
        return bool(self.manifest.content["final"])

    @property
    def weights(self) -> dict[str, Tensor]:
        """The model's state dict to use: of a final checkpoint the chosen weights (``trainer.keep``)."""
        chosen = self.state["best"] if self.manifest.content["chosen"] == "best" else self.state
        weights: dict[str, Tensor] = chosen["model"]
        return weights


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the name of the checkpoint of ``step`` below ``folder``."""
    return folder / f"step-{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints below ``folder``, oldest first."""
    if not folder.is_dir():
        return []
    with disk_errors("read", folder):
        named = [(match, path) for path in folder.iterdir() if (match := _NAME.match(path.name))]
    return [path for _, path in sorted((int(match[1]), path) for match, path in named)]


def latest_checkpoint(run_out: Path) -> Path | None:
    """Return the newest checkpoint of the run at ``run_out``, or None."""
    found = list_checkpoints(RunFolder(run_out).checkpoints)
    return found[-1] if found else None


def final_checkpoint(run_out: Path) -> Path:
    """Return the checkpoint that a finished training left at ``run_out``.

    Raises:
        ArtefactError: Training has not finished there.
    """
    latest = latest_checkpoint(run_out)
    if latest is None:
        raise ArtefactError(f"{run_out} holds no checkpoint; run `graphsys train` first")
    content = read_manifest(latest, KIND).content
    if not content["final"]:
        raise ArtefactError(
            f"{run_out} holds an unfinished training (step {content['step']}); run `graphsys train` again to finish it"
        )
    return latest


def training_manifest(
    run: RunConfig, history: Sequence[EpochRecord], cursor: LoaderCursor, *,
    step: int, final: bool, has_best: bool, parents: dict[str, str],
) -> Manifest:  # fmt: skip
    """Return the manifest of a checkpoint to be written: what it belongs to, and how far the training is.

    Args:
        history: Every finished epoch.
        cursor: The first batch that no worker took.
        step: Optimizer steps taken.
        final: Whether training has ended.
        has_best: Whether the state holds the weights of the best validation.
        parents: Fingerprints of what the training is made from.
    """
    best = best_epoch(history)
    content = {
        "step": step,
        "epoch": len(history),
        "cursor": {"epoch": cursor.epoch, "next_batch_id": cursor.next_batch_id},
        "final": final,
        "chosen": "best" if final and has_best else "last",
        "best_epoch": best,
        "metrics": {
            "train": history[-1].train if history else None,
            "val": None if best is None else history[best].val,
        },
    }
    return Manifest(kind=KIND, config=training_identity(run), parents=parents, content=content)


def save_checkpoint(
    path: Path,
    state: Mapping[str, Any],
    manifest: Manifest,
    *,
    arrays: Callable[[Path], Mapping[str, FlatSpec]] = lambda _: {},
) -> Manifest:
    """Write a checkpoint, replacing one of the same name; return its manifest with the checksum filled in.

    Args:
        path: What :func:`checkpoint_path` returns.
        state: Tensors, numbers, strings, lists and dicts only; must hold ``model``, and ``best`` when it is chosen.
        manifest: Its ``files`` and ``arrays`` are set here.
        arrays: Writes flat arrays below the folder that it is given, and returns them by name.

    Raises:
        DiskError: The system refused; ``path`` is as it was.
    """
    with atomic_folder(path, overwrite=True) as partial:
        # torch hides the system's errors (a full disk) behind its own when it writes a file itself.
        buffer = io.BytesIO()
        torch.save(_interned(state), buffer)
        (partial / STATE_NAME).write_bytes(buffer.getbuffer())
        files = {STATE_NAME: file_checksum(partial / STATE_NAME)}
        whole = replace(manifest, kind=KIND, files=files, arrays=dict(arrays(partial)))
        write_manifest(partial, whole)
    return whole


def _interned(value: Any) -> Any:
    # Pickle writes equal strings once when they are one object and twice when not; a resumed run has other objects than
    # one that never stopped. With one object per text, equal states give equal bytes.
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, Mapping):
        return {_interned(key): _interned(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_interned(item) for item in value)
    return value


def load_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint at ``path``, all tensors on the CPU, after checking its bytes.

    Raises:
        ArtefactError: It is not a checkpoint, or one of a newer format.
        CorruptError: A byte changed.
    """
    manifest = read_manifest(path, KIND)
    verify_folder(path, manifest)
    try:
        with disk_errors("read", path):
            state = torch.load(path / STATE_NAME, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise CorruptError(f"{path / STATE_NAME} is not a checkpoint's state; train again") from error
    return Checkpoint(path=path, manifest=manifest, state=state)


def prune_checkpoints(folder: Path, *, keep: int = KEEP) -> None:
    """Remove all but the newest ``keep`` checkpoints, oldest first, and what killed runs left under temporary names."""
    found = list_checkpoints(folder)
    for path in found[: max(len(found) - keep, 0)]:
        remove_artefact(path)
    for leftover in folder.glob(".step-*"):
        remove_path(leftover)
