"""What lies at a path: finds artefacts, says what they hold, and checks every byte of them.

An artefact is a folder with a manifest (store, checkpoint, embedding table, ...), a window, or a sealed file of a run.
A run's folder holds many.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from graphsys.core.errors import ArtefactError
from graphsys.core.progress import SILENT, Progress, task
from graphsys.storage.files import PARTIAL_SUFFIX, disk_errors, folder_bytes
from graphsys.storage.manifest import MANIFEST_NAME, open_sealed_json, read_manifest, verify_folder
from graphsys.storage.run_file import RESULT_NAME, RUN_FILE_NAME, verify_run_file
from graphsys.storage.window import Window

WINDOW_SUFFIXES = (".sample", ".pack")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artefact:
    """One artefact on disk, not opened yet."""

    path: Path
    form: Literal["folder", "window", "json", "yaml"]

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
        elif path.name == RESULT_NAME:
            yield Artefact(path=path, form="json")
        elif path.name == RUN_FILE_NAME:
            yield Artefact(path=path, form="yaml")
    elif (path / MANIFEST_NAME).is_file():
        yield Artefact(path=path, form="folder")
    else:
        for child in sorted(path.iterdir()):
            # What a killed stage left under a temporary name is no artefact; the next run replaces it.
            if not child.name.endswith(PARTIAL_SUFFIX):
                yield from _walk(child)


def verify(path: Path, *, progress: Progress = SILENT) -> list[Artefact]:
    """Read every byte of the artefacts at ``path`` and check it; return what was checked.

    Raises:
        ArtefactError: There is no artefact.
        FormatVersionError: One was written by a newer format.
        CorruptError: The first difference found, by file and place.
    """
    found = find_artefacts(path)
    for artefact in found:
        with task(progress, f"verify {artefact.path.name}", artefact.nbytes, "B") as work:
            if artefact.form == "folder":
                verify_folder(artefact.path, read_manifest(artefact.path), task=work)
            elif artefact.form == "window":
                Window.open(artefact.path, None).verify()
            elif artefact.form == "json":
                open_sealed_json(artefact.path)
            else:
                verify_run_file(artefact.path)
    return found


def describe(artefact: Artefact) -> dict[str, Any]:
    """Return what one artefact holds, as plain JSON values; only its metadata is read.

    Raises:
        ArtefactError, FormatVersionError, CorruptError: As :func:`verify`, for the metadata.
    """
    common = {"path": str(artefact.path), "nbytes": artefact.nbytes}
    if artefact.form == "folder":
        return {**common, **_describe_folder(artefact.path)}
    if artefact.form == "window":
        return {**common, **_describe_window(artefact.path)}
    if artefact.form == "json":
        return {**common, "kind": "result", "content": open_sealed_json(artefact.path)}
    return {**common, "kind": "run_file", "content": verify_run_file(artefact.path)}


def _describe_folder(path: Path) -> dict[str, Any]:
    manifest = read_manifest(path)
    arrays = {
        name: {"dtype": spec.dtype, "shape": list(spec.shape), "nbytes": spec.nbytes}
        for name, spec in manifest.arrays.items()
    }
    return {
        "kind": manifest.kind,
        "format_version": manifest.format_version,
        "fingerprint": manifest.fingerprint,
        "parents": manifest.parents,
        "content": manifest.content,
        "config": manifest.config,
        "arrays": arrays,
    }


def _describe_window(path: Path) -> dict[str, Any]:
    window = Window.open(path, None)
    entries = window.entries
    return {
        "kind": "window",
        "fingerprint": window.header.fingerprint,
        "content": {
            **asdict(window.header),
            "num_nodes": sum(entry.num_nodes for entry in entries),
            "num_edges": sum(entry.num_edges for entry in entries),
            "num_rows": sum(entry.num_rows for entry in entries),
            "largest_batch_bytes": window.largest_nbytes,
        },
    }
