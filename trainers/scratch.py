"""Folders for measurements on a run's own disk, which are gone afterwards, also after a kill."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from graphsys.core.errors import DiskError
from graphsys.storage.disk_speed import existing_folder
from graphsys.storage.files import claimed_folder, disk_errors, is_claimed, refuse_inside_artefact

_PREFIX = ".graphsys-scratch-"
_NAME = re.compile(re.escape(_PREFIX) + r"(\d+)-.+")


@contextmanager
def scratch_folder(near: Path) -> Iterator[Path]:
    """Make an empty folder in ``near``, or its nearest parent that exists, and remove it with all it holds.

    What a killed process left there, or beside ``near``, is removed too.

    Raises:
        DiskError: The system refused.
    """
    place = existing_folder(near)
    refuse_inside_artefact(near)
    for folder in {place, near.absolute().parent}:
        _sweep(folder)
    with disk_errors("write", place):
        scratch = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
    try:
        with claimed_folder(scratch, name=near):
            yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sweep(place: Path) -> None:
    """Remove the folders in ``place`` whose makers are gone; one on another machine still holds its claim."""
    if not place.is_dir():
        return
    for path in place.glob(_PREFIX + "*"):
        match = _NAME.fullmatch(path.name)
        if match and not Path("/proc", match[1]).exists():
            with suppress(DiskError):  # another process may be sweeping it too
                if not is_claimed(path):
                    shutil.rmtree(path, ignore_errors=True)
