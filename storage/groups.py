"""Zarr v3 group entries, so that any Zarr reader walks an artefact from its root."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from graphsys.storage.files import disk_errors
from graphsys.storage.manifest import file_checksum


def write_groups(folder: Path, array_names: Iterable[str], attributes: dict[str, Any] | None = None) -> dict[str, str]:
    """Write the ``zarr.json`` of the root and of every folder above an array; return their manifest entries.

    Args:
        array_names: Paths of the arrays below ``folder``, such as ``nodes/paper/x``.
        attributes: JSON values that the root group carries.

    Returns:
        Path below ``folder`` -> xxh3_128, for ``manifest.files``.
    """
    parents = {PurePosixPath(name).parents[place] for name in array_names for place in range(name.count("/") + 1)}
    files: dict[str, str] = {}
    for parent in sorted({PurePosixPath(), *parents}):
        path = folder / parent / "zarr.json"
        metadata = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": (attributes or {}) if parent == PurePosixPath() else {},
        }
        with disk_errors("write", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(json.dumps(metadata, indent=2, sort_keys=True).encode() + b"\n")
        files[path.relative_to(folder).as_posix()] = file_checksum(path)
    return files
