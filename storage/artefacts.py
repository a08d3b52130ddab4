"""Finds the artefacts at a path.

An artefact is a folder with a manifest (store, checkpoint, embedding table, ...), a window, or a sealed file of a run.
A run's folder holds many.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from graphsys.core.errors import ArtefactError
from graphsys.storage.files import disk_errors, folder_bytes
from graphsys.storage.manifest import MANIFEST_NAME, read_manifest
from graphsys.storage.run_file import CUT_NAME, PLAN_NAME, RESULT_NAME, RUN_FILE_NAME

WINDOW_SUFFIXES = (".sample", ".pack")
_ARTEFACT_FILES = (MANIFEST_NAME, "zarr.json", "state.pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """One artefact on disk, not opened yet."""

    path: Path
    form: Literal["folder", "window", "json", "yaml"]

    @property
    def kind(self) -> str:
        """What a folder's manifest says ("store", "checkpoint", ...), or "window", "result" or "run_file".

        Raises:
            ArtefactError, FormatVersionError, CorruptError: The manifest cannot be used.
        """
        if self.form == "folder":
            return read_manifest(self.path).kind
        return {"window": "window", "json": "result", "yaml": "run_file"}[self.form]

    @property
    def nbytes(self) -> int:
        """Bytes of all its files."""
        return folder_bytes(self.path)


def find_artefacts(path: Path) -> list[Artefact]:
    """Return the artefact at ``path``, or all artefacts below it in the order of their names.

    Raises:
        ArtefactError: There is nothing that graphsys wrote.
    """
    with disk_errors("read", path):
        if not path.exists():
            raise ArtefactError(f"{path} does not exist; give the path of a store, a run folder or another artefact")
        found = list(_walk(path))
    if not found:
        raise ArtefactError(f"{path} is not a graphsys artefact, nor a folder that holds one")
    return found


def _walk(path: Path) -> Iterator[Artefact]:
    if path.is_file():
        if path.suffix in WINDOW_SUFFIXES:
            yield Artefact(path=path, form="window")
        elif path.name in (RESULT_NAME, PLAN_NAME, CUT_NAME):
            yield Artefact(path=path, form="json")
        elif path.name == RUN_FILE_NAME:
            yield Artefact(path=path, form="yaml")
    elif any((path / name).is_file() for name in _ARTEFACT_FILES):
        # A Zarr group or a checkpoint that lost its manifest is still an artefact, and a damaged one.
        yield Artefact(path=path, form="folder")
    else:
        for child in sorted(path.iterdir()):
            # What a killed stage left under a hidden, temporary name is no artefact; the next run replaces it.
            if not child.name.startswith("."):
                yield from _walk(child)
