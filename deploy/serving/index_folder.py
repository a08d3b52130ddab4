"""An index on disk, beside the table that it belongs to: how it is made, kept and opened."""

import time
from pathlib import Path

from usearch.index import Index

from graphsys.core.errors import ArtefactError, CorruptError, DiskError
from graphsys.core.progress import SILENT, Progress
from graphsys.deploy.serving.best_graph import best_graph, graph_nodes
from graphsys.deploy.serving.distinct import Copies, owners
from graphsys.deploy.serving.exact import ExactSearch
from graphsys.deploy.serving.hnsw import NeighbourGraph, Space
from graphsys.deploy.serving.wanted_index import Opened, Wanted
from graphsys.storage.files import atomic_folder, is_claimed, partial_path
from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.manifest import (
    MANIFEST_NAME,
    Manifest,
    file_checksum,
    read_manifest,
    verify_folder,
    write_manifest,
)

KIND = "neighbour_index"
GRAPH_NAME = "graph.usearch"
_COPIES, _ASIDE = "copies", "aside"
_WAIT_S = 3600.0
_LOOK_S = 0.2


def open_or_build(wanted: Wanted, exact: ExactSearch, progress: Progress = SILENT) -> Opened:
    """Open the index, its bytes compared with their checksums; build it first where there is none of this table.

    Raises:
        DiskError: The index cannot be written beside the table.
    """
    deadline = time.monotonic() + _WAIT_S
    while True:
        if _is_current(wanted):
            try:
                return _open(wanted, exact)
            except CorruptError as error:
                progress.message(f"{error}. The index is built again from the table")
        if _waited(wanted.folder, deadline):
            continue
        try:
            _build(wanted, exact, progress)
        except DiskError:
            # Another process may have begun, or even ended, between our look and our claim.
            if not _waited(wanted.folder, deadline) and not _is_current(wanted):
                raise


def _waited(folder: Path, deadline: float) -> bool:
    """Wait while another process builds the index; return whether there was one.

    Raises:
        DiskError: It has not ended in time.
    """
    if not _is_being_built(folder):
        return False
    while _is_being_built(folder):
        if time.monotonic() > deadline:
            raise DiskError(f"another process has been building {folder} for an hour; stop it, or serve a copy")
        time.sleep(_LOOK_S)
    return True


def _is_being_built(folder: Path) -> bool:
    partial = partial_path(folder)
    return partial.is_dir() and is_claimed(partial)


def _is_current(wanted: Wanted) -> bool:
    if not (wanted.folder / MANIFEST_NAME).is_file():
        return False
    try:
        manifest = read_manifest(wanted.folder, KIND)
    except CorruptError:
        return False
    return manifest.parents == wanted.parents and manifest.config == wanted.config


def _open(wanted: Wanted, exact: ExactSearch) -> Opened:
    manifest = read_manifest(wanted.folder, KIND)
    verify_folder(wanted.folder, manifest)
    content = manifest.content
    if content["kind"] == "exact":
        return Opened(graph=None, content=content)
    index = Index.restore(str(wanted.folder / GRAPH_NAME), view=True)
    if index is None or len(index) != content["num_vectors"]:
        raise CorruptError(f"{wanted.folder / GRAPH_NAME} is no index of {content['num_vectors']} vectors")
    arrays = {name: FlatArray(wanted.folder / name, spec).read() for name, spec in manifest.arrays.items()}
    copies = Copies.from_arrays(
        {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{_COPIES}/")}
    )
    graph = NeighbourGraph(
        index,
        Space(metric=wanted.metric, longest=content["longest"]),
        exact.vectors,
        copies,
        aside=arrays[_ASIDE],
        expansion=content["expansion"],
        threads=wanted.threads,
    )
    graph.set_expansion(content["expansion"])
    return Opened(graph=graph, content=content)


def _build(wanted: Wanted, exact: ExactSearch, progress: Progress) -> None:
    with atomic_folder(wanted.folder, overwrite=_may_replace(wanted.folder)) as partial:
        owner = owners(exact.vectors, exact.lengths)
        node, aside = graph_nodes(owner, exact, wanted.metric)
        arrays, files = {}, {}
        built = best_graph(wanted, exact, node, aside, Copies.of(owner), progress)
        if built.graph is not None:
            built.graph.save(partial / GRAPH_NAME)
            built.graph.close()
            files = {GRAPH_NAME: file_checksum(partial / GRAPH_NAME)}
            named = {f"{_COPIES}/{name}": array for name, array in Copies.of(owner).as_arrays().items()}
            arrays = {name: write_array(partial / name, array) for name, array in {**named, _ASIDE: aside}.items()}
        config, parents = wanted.config, wanted.parents
        manifest = Manifest(
            kind=KIND, config=config, parents=parents, content=built.content, arrays=arrays, files=files
        )
        write_manifest(partial, manifest)


def _may_replace(folder: Path) -> bool:
    """Whether ``folder`` is an index, perhaps damaged or of another table, which a new one may replace.

    Raises:
        ArtefactError: Something else lies there.
    """
    if folder.exists() and not (folder / MANIFEST_NAME).is_file():
        raise ArtefactError(f"{folder} is no index of neighbours; move it away, for the table's index is kept there")
    return folder.exists()
