from pathlib import Path

import numpy as np
import pytest

from graphsys.core.errors import ArtefactError, CorruptError, FormatVersionError
from graphsys.storage.files import write_bytes
from graphsys.storage.flat import write_array
from graphsys.storage.manifest import (
    FORMAT_VERSION,
    MANIFEST_NAME,
    Manifest,
    file_checksum,
    open_sealed_json,
    read_manifest,
    sealed_json,
    verify_folder,
    write_manifest,
)


def artefact(folder: Path, *, version: int = FORMAT_VERSION) -> Manifest:
    spec = write_array(folder / "x", np.arange(10, dtype=np.int64))
    write_bytes(folder / "note.txt", b"hello")
    manifest = Manifest(
        kind="store",
        config={"a": 1},
        parents={"raw": "00"},
        content={"n": 10},
        arrays={"x": spec},
        files={"note.txt": file_checksum(folder / "note.txt")},
        format_version=version,
    )
    write_manifest(folder, manifest)
    return manifest


def test_a_manifest_is_read_as_written_and_keeps_its_fingerprint(tmp_path: Path) -> None:
    manifest = artefact(tmp_path)
    again = read_manifest(tmp_path, "store")
    assert again == manifest
    assert again.fingerprint == manifest.fingerprint
    assert verify_folder(tmp_path, again) == sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())


def test_every_flipped_byte_of_a_manifest_is_found(tmp_path: Path) -> None:
    artefact(tmp_path)
    path = tmp_path / MANIFEST_NAME
    raw = path.read_bytes()
    for place in range(len(raw)):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x04]) + raw[place + 1 :])
        with pytest.raises(CorruptError):
            read_manifest(tmp_path, "store")


def test_a_folder_that_is_no_artefact_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"does not exist; expected a graphsys store there\. .* `graphsys import`"):
        read_manifest(tmp_path / "none", "store")
    with pytest.raises(ArtefactError, match="is not a graphsys store"):
        read_manifest(tmp_path, "store")


def test_an_artefact_of_another_kind_is_named(tmp_path: Path) -> None:
    artefact(tmp_path)
    with pytest.raises(ArtefactError, match=r"it is a store\. .* write one with `graphsys embed RUN\.yaml`"):
        read_manifest(tmp_path, "embedding_table")


def test_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    artefact(tmp_path, version=FORMAT_VERSION + 1)
    with pytest.raises(
        FormatVersionError, match=rf"version {FORMAT_VERSION + 1}; this program reads up to {FORMAT_VERSION}"
    ):
        read_manifest(tmp_path, "store")


def test_a_changed_missing_or_surplus_file_is_found(tmp_path: Path) -> None:
    manifest = artefact(tmp_path)
    (tmp_path / "note.txt").write_bytes(b"hellp")
    with pytest.raises(CorruptError, match=r"note\.txt is corrupt"):
        verify_folder(tmp_path, manifest)
    (tmp_path / "note.txt").unlink()
    with pytest.raises(CorruptError, match=r"note\.txt is missing"):
        verify_folder(tmp_path, manifest)
    (tmp_path / "note.txt").write_bytes(b"hello")
    (tmp_path / "stray").write_bytes(b"")
    with pytest.raises(CorruptError, match="does not belong"):
        verify_folder(tmp_path, manifest)


def test_sealed_json_has_one_spelling(tmp_path: Path) -> None:
    raw = sealed_json({"b": [1, 2.5, None], "a": "é"})
    path = tmp_path / "value.json"
    path.write_bytes(raw)
    assert open_sealed_json(path) == {"a": "é", "b": [1, 2.5, None]}
    path.write_bytes(raw.replace(b",", b", "))
    with pytest.raises(CorruptError):
        open_sealed_json(path)


def test_a_flip_that_makes_a_number_infinite_is_found(tmp_path: Path) -> None:
    raw, path = sealed_json({"loss": 1e-05}), tmp_path / "value.json"
    path.write_bytes(raw.replace(b"1e-05", b"1e905"))
    with pytest.raises(CorruptError, match="holds no sealed JSON"):
        open_sealed_json(path)
