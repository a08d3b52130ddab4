"""The map of a table on disk, beside the table: saved, read and checked. Layout: ``docs/format/embeddings.md``."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from graphsys.core.errors import ConfigError, CorruptError, StaleArtefactError
from graphsys.core.progress import SILENT, Progress
from graphsys.deploy.serving.projection import MapSettings, Projection, compute_projection
from graphsys.deploy.serving.reduction import Axes
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.files import atomic_folder
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.groups import write_groups
from graphsys.storage.manifest import Manifest, check_replaceable, read_manifest, write_manifest

KIND = "projection"
MAP_SUFFIX = ".map"


def map_path(table: Path) -> Path:
    """Return where the map of the table at ``table`` is saved: beside it."""
    return table.with_name(table.name + MAP_SUFFIX)


def open_projection(
    table: EmbeddingTable, settings: MapSettings | None = None, progress: Progress = SILENT
) -> Projection:
    """Return the map saved beside the table where it is of this table; else compute one, which is not saved.

    A saved map that cannot be used is named in a message and passed over: a service is not kept from its vectors by
    a picture of them.

    Raises:
        CorruptError: A chunk of the table is not as it was written.
    """
    if map_path(table.path).exists():
        try:
            return read_projection(table)
        except (CorruptError, StaleArtefactError) as error:
            progress.message(f"{error}. The map is computed anew")
    return compute_projection(table, settings or MapSettings(), progress)


def save_projection(table: EmbeddingTable, projection: Projection, *, overwrite: bool = False) -> Path:
    """Write the map beside its table, whole or not at all; return its path.

    Raises:
        ArtefactError: Something that is no map lies there.
        DiskError: A map lies there and ``overwrite`` is not given, or the system refused.
    """
    path = map_path(table.path)
    if overwrite:
        check_replaceable(path, KIND)
    arrays: dict[str, npt.NDArray[Any]] = {"node": projection.node, "xy": projection.xy}
    if projection.axes is not None:
        arrays |= {"mean": projection.axes.mean, "axes": projection.axes.columns}
    content = {
        "num_points": projection.num_points,
        "num_rows": projection.num_rows,
        "left_out": projection.left_out,
        "explained": [] if projection.axes is None else list(projection.axes.explained),
        "seconds": round(projection.seconds, 3),
    }
    with atomic_folder(path, overwrite=overwrite) as partial:
        specs = {name: write_array(partial / name, array) for name, array in arrays.items()}
        files = write_groups(partial, specs, content)
        config, parents = projection.settings.as_dict(), {"table": table.fingerprint}
        write_manifest(
            partial,
            Manifest(kind=KIND, config=config, parents=parents, content=content, arrays=specs, files=files),
        )
    return path


def read_projection(table: EmbeddingTable) -> Projection:
    """Return the map saved beside the table, every byte of it compared with its checksum.

    Raises:
        ArtefactError: There is none.
        StaleArtefactError: It is the map of another table.
        CorruptError: It is not as it was written.
    """
    path = map_path(table.path)
    manifest = read_manifest(path, KIND)
    if manifest.parents.get("table") != table.fingerprint:
        raise StaleArtefactError(
            f"{path} is the map of another table than {table.path} is now; run "
            f"`graphsys project {table.path} --overwrite`"
        )
    try:
        arrays = {name: _checked_array(path / name, manifest) for name in manifest.arrays}
        content, settings = manifest.content, MapSettings(**manifest.config)
        explained = tuple(content["explained"])
        axes = Axes(mean=arrays["mean"], columns=arrays["axes"], explained=explained) if "axes" in arrays else None
        return Projection(
            settings=settings,
            node=arrays["node"],
            xy=arrays["xy"],
            axes=axes,
            left_out=content["left_out"],
            num_rows=content["num_rows"],
            saved=True,
            fingerprint=manifest.fingerprint,
            seconds=content["seconds"],
        )
    except (KeyError, TypeError, ConfigError) as error:
        raise CorruptError(f"{path} is no map: {error!r} is not as expected. Make it again with --overwrite") from error


def _checked_array(folder: Path, manifest: Manifest) -> npt.NDArray[Any]:
    array = FlatArray(folder, manifest.arrays[folder.name])
    array.verify()
    return array.read()
