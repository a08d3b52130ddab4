"""Reads every byte of artefacts and checks it; names all that changed, not only the first."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from graphsys.core.errors import ArtefactError, CorruptError, DiskError, GraphsysError
from graphsys.core.progress import SILENT, Progress, Task, task
from graphsys.storage.artefacts import Artefact, find_artefacts
from graphsys.storage.manifest import folder_faults, open_sealed_json, read_manifest
from graphsys.storage.run_file import verify_run_file
from graphsys.storage.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One artefact, every byte of it as it was written."""

    path: Path
    kind: str  # "store", "checkpoint", "embedding_table", "inference", "window", "result", "run_file"
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What was read and found whole."""

    path: Path
    artefacts: tuple[Checked, ...]
    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes of all artefacts."""
        return sum(artefact.nbytes for artefact in self.artefacts)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        artefacts = [{**asdict(artefact), "path": str(artefact.path)} for artefact in self.artefacts]
        return {"path": str(self.path), "artefacts": artefacts, "nbytes": self.nbytes, "seconds": self.seconds}


def verify(path: Path, *, progress: Progress = SILENT) -> VerifyReport:
    """Read every byte of the artefact at ``path``, or of all artefacts below it, and check it.

    Logs are no artefacts, and neither is what a killed stage left under a temporary name.

    Raises:
        ArtefactError: There is no artefact; or, as a FormatVersionError, the only fault is that one is newer.
        CorruptError: Something changed; the message names every file and place.
        DiskError: The only fault is that the system refused a read.
    """
    started = time.perf_counter()
    found = find_artefacts(path)
    with task(progress, f"verify {path.name}", sum(artefact.nbytes for artefact in found), "B") as work:
        faults = [fault for artefact in found for fault in _faults(artefact, work)]
    if faults:
        raise _joined(path, faults)
    checked = tuple(Checked(path=artefact.path, kind=artefact.kind, nbytes=artefact.nbytes) for artefact in found)
    return VerifyReport(path=path, artefacts=checked, seconds=time.perf_counter() - started)


def _joined(path: Path, faults: list[GraphsysError]) -> GraphsysError:
    if len(faults) == 1:
        return faults[0]
    return CorruptError(f"{path} has {len(faults)} faults: " + "; ".join(f"({n}) {f}" for n, f in enumerate(faults, 1)))


def _faults(artefact: Artefact, work: Task) -> Iterator[GraphsysError]:
    try:
        if artefact.form == "folder":
            yield from folder_faults(artefact.path, read_manifest(artefact.path), work)
            return
        _check_file(artefact)
        work.advance(artefact.nbytes)
    except (ArtefactError, DiskError) as fault:
        yield fault


def _check_file(artefact: Artefact) -> None:
    if artefact.form == "window":
        Window.open(artefact.path, None).verify()
    elif artefact.form == "json":
        open_sealed_json(artefact.path)
    else:
        verify_run_file(artefact.path)
