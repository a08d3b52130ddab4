"""The files of windows in a run's folder: which they are, and how they are cleared away."""

import re
from contextlib import suppress
from pathlib import Path

from graphsys.storage.files import PARTIAL_SUFFIX, disk_errors, remove_path
from graphsys.trainers.run_folder import RunFolder

_FILE = re.compile(r"window-(\d+)\.(sample|pack)")
_SHARE = re.compile(r"rank-(\d+)")


def window_path(folder: Path, index: int, kind: str) -> Path:
    """Return the file of window ``index``; ``kind`` is "sample" or "pack"."""
    return folder / f"window-{index:04d}.{kind}"


def window_files(folder: Path) -> list[tuple[Path, int, str]]:
    """Return path, index and kind of all windows in ``folder``; a window's .pack comes before its .sample."""
    matches = [(path, _FILE.fullmatch(path.name)) for path in _files(folder)]
    return [(path, int(match[1]), match[2]) for path, match in matches if match is not None]


def remove_partials(folder: Path) -> None:
    """Remove what a process left in ``folder`` that was killed while it wrote."""
    for path in _files(folder):
        if path.name.endswith(PARTIAL_SUFFIX):
            remove_path(path)


def remove_windows(folder: Path) -> None:
    """Remove all windows of a split, whole or half made, and the folder when nothing else is in it."""
    remove_partials(folder)
    for path, _, _ in window_files(folder):
        remove_path(path)
    with suppress(OSError):  # it is not there, or something else lies in it
        folder.rmdir()


def remove_other_shares(out: Path, world_size: int) -> None:
    """Remove the training windows that runs with another number of workers left in the run's folder ``out``."""
    folder = RunFolder(out)
    if world_size > 1:
        remove_windows(folder.windows("train"))
    for path in _files(folder.windows("train").parent):
        match = _SHARE.fullmatch(path.name)
        if match and (world_size == 1 or int(match[1]) >= world_size):
            remove_path(path)


def remove_all_windows(out: Path) -> None:
    """Remove the windows of both splits and of all workers in the run's folder ``out``."""
    remove_path(RunFolder(out).windows("train").parent)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with disk_errors("read", folder):
        return sorted(folder.iterdir())
