"""The manifest of an artefact: what it is, what it holds, what it was made from.

A manifest is canonical JSON with its own checksum, so that every byte of it is covered; its fingerprint names the
artefact in its children's manifests.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from graphsys.core.errors import ArtefactError, CorruptError, DiskError, FormatVersionError, GraphsysError
from graphsys.core.progress import Task
from graphsys.storage.files import disk_errors, write_bytes
from graphsys.storage.flat import FlatArray, FlatSpec, chunk_file

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
_MAKERS = {
    "store": "graphsys import",
    "checkpoint": "graphsys train RUN.yaml",
    "embedding_table": "graphsys embed RUN.yaml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an artefact says of itself."""

    kind: str  # "store", "checkpoint", "embedding_table", "inference", ...
    config: dict[str, Any]  # the resolved settings it was made with
    parents: dict[str, str]  # role -> fingerprint, such as {"store": "3f..."}
    content: dict[str, Any]  # counts and schema, by kind
    arrays: dict[str, FlatSpec] = field(default_factory=dict)  # path below the artefact -> flat array
    files: dict[str, str] = field(default_factory=dict)  # path below the artefact -> xxh3_128 of a whole file
    format_version: int = FORMAT_VERSION

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the checksum left out."""
        return {
            "format": f"graphsys.{self.kind}",
            "format_version": self.format_version,
            "config": self.config,
            "parents": self.parents,
            "content": self.content,
            "arrays": {name: spec.as_dict() for name, spec in self.arrays.items()},
            "files": self.files,
        }

    @property
    def fingerprint(self) -> str:
        """32 hex digits that depend on everything the manifest says, so on all the artefact's bytes."""
        return fingerprint(self.as_dict())


def canonical(value: Any) -> bytes:
    """Return the one JSON spelling of ``value``: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def fingerprint(value: Any) -> str:
    """Return 32 hex digits that depend on every part of a JSON value."""
    return xxhash.xxh3_128(canonical(value)).hexdigest()


def file_checksum(path: Path) -> str:
    """Return the xxh3_128 of a whole file, as 32 hex digits."""
    digest = xxhash.xxh3_128()
    with disk_errors("read", path), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sealed_json(value: dict[str, Any]) -> bytes:
    """Return ``value`` as JSON that carries its own checksum."""
    return canonical({**value, "checksum": fingerprint(value)}) + b"\n"


def open_sealed_json(path: Path) -> dict[str, Any]:
    """Return what :func:`sealed_json` wrote.

    Raises:
        ArtefactError: It is not such a file.
        CorruptError: A byte differs from what was written.
    """
    with disk_errors("read", path):
        raw = path.read_bytes()
    try:
        value: dict[str, Any] = json.loads(raw)
        checksum = value.pop("checksum")
        sealed, expected = sealed_json(value), fingerprint(value)  # neither takes a number that a flip made infinite
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CorruptError(f"{path} is corrupt or not a graphsys file: it holds no sealed JSON") from error
    if sealed != raw or checksum != expected:
        raise CorruptError(f"{path} is corrupt: its bytes do not match the checksum it carries")
    return value


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``manifest.json`` into an artefact's folder."""
    write_bytes(folder / MANIFEST_NAME, sealed_json(manifest.as_dict()))


def _next_step(kind: str | None) -> str:
    command = _MAKERS.get(kind or "")
    return "Check the path" if command is None else f"Check the path, or write one with `{command}`"


def read_manifest(folder: Path, kind: str | None = None) -> Manifest:
    """Return the manifest of the artefact at ``folder``.

    Args:
        kind: What the artefact must be; None takes any.

    Raises:
        ArtefactError: There is no artefact, or one of another kind.
        FormatVersionError: It was written by a newer format.
        CorruptError: The manifest's bytes changed.
        DiskError: The system refused, as it does for a name that is too long.
    """
    wanted = f"a graphsys {kind.replace('_', ' ')}" if kind else "a graphsys artefact"
    path = folder / MANIFEST_NAME
    with disk_errors("read", folder):
        if not folder.exists():
            raise ArtefactError(f"{folder} does not exist; expected {wanted} there. {_next_step(kind)}")
        if not path.is_file():
            raise ArtefactError(f"{folder} is not {wanted}: it has no {MANIFEST_NAME}. {_next_step(kind)}")
    value = open_sealed_json(path)
    found = str(value.get("format", "")).removeprefix("graphsys.")
    version = value.get("format_version", 0)
    if kind is not None and found != kind:
        other = found.replace("_", " ") or "file of another program"
        raise ArtefactError(f"{folder} is not {wanted}: it is a {other}. {_next_step(kind)}")
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{folder} has {found} format version {version}; this program reads up to {FORMAT_VERSION}. "
            f"Upgrade graphsys"
        )
    try:
        return Manifest(
            kind=found,
            config=value["config"],
            parents=value["parents"],
            content=value["content"],
            arrays={name: FlatSpec.from_dict(spec) for name, spec in value["arrays"].items()},
            files=value["files"],
            format_version=version,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{path} is no manifest: {error!r} is not as expected. Make the artefact again") from error


def check_replaceable(path: Path, kind: str) -> None:
    """Check that ``path`` holds an artefact of ``kind``, perhaps a damaged one, or an empty folder, or nothing.

    Raises:
        ArtefactError: It holds something else, which an overwrite would destroy.
    """
    with disk_errors("read", path):
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return
    shown = kind.replace("_", " ")
    article = "an" if shown[0] in "aeiou" else "a"
    try:
        read_manifest(path, kind)
    except FormatVersionError:
        return
    except CorruptError as error:
        if f'"format":"graphsys.{kind}"'.encode() not in (path / MANIFEST_NAME).read_bytes():
            raise ArtefactError(
                f"{path} is perhaps no {shown}, for its {MANIFEST_NAME} is damaged; --overwrite replaces {shown}s "
                f"only, so choose another --out or remove it yourself"
            ) from error
    except ArtefactError as error:
        raise ArtefactError(
            f"{path} is not {article} {shown}; --overwrite replaces {shown}s only, so choose another --out"
        ) from error


def verify_folder(folder: Path, manifest: Manifest, task: Task | None = None) -> int:
    """Check every array and file that a manifest names, and that nothing else lies there; return the bytes read.

    Args:
        task: Is advanced by the bytes of the arrays as they are checked.

    Raises:
        CorruptError: The first difference found, by file and place.
    """
    for fault in folder_faults(folder, manifest, task):
        raise fault
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def folder_faults(folder: Path, manifest: Manifest, task: Task | None = None) -> Iterator[GraphsysError]:
    """Check as :func:`verify_folder` does; yield an error for every array or file that differs."""
    expected = {MANIFEST_NAME}
    for name, spec in manifest.arrays.items():
        files = (folder / name / "zarr.json", chunk_file(folder / name, len(spec.shape)))
        expected |= {path.relative_to(folder).as_posix() for path in files}
        missing = [path for path in files if not path.is_file()]
        yield from (_missing(path) for path in missing)
        if not missing:
            try:
                FlatArray(folder / name, spec).verify(task)
            except (CorruptError, DiskError) as fault:
                yield fault
    for name, checksum in manifest.files.items():
        expected.add(name)
        changed = _file_fault(folder / name, checksum)
        if changed is not None:
            yield changed
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in expected:
            yield CorruptError(f"{path} does not belong to the artefact; the manifest does not name it")


def _missing(path: Path) -> CorruptError:
    return CorruptError(f"{path} is missing; the manifest names it. Make the artefact again")


def _file_fault(path: Path, checksum: str) -> CorruptError | None:
    if not path.is_file():
        return _missing(path)
    found = file_checksum(path)
    if found == checksum:
        return None
    return CorruptError(f"{path} is corrupt: xxh3 {found}, the manifest says {checksum}. Make the artefact again")
