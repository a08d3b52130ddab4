"""The graph that a benchmark runs on: generated once and kept, or the user's own."""

from dataclasses import asdict
from pathlib import Path

from graphsys.bench.setting import SIZES, Size
from graphsys.core.errors import ArtefactError, DiskError, InputError, StaleArtefactError
from graphsys.core.progress import Progress
from graphsys.storage.files import disk_errors, drop_cache
from graphsys.storage.generate import generate
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.manifest import MANIFEST_NAME, fingerprint
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec
from graphsys.storage.store import Store


def find_graph(given: Path | None, size: Size, work: Path, progress: Progress) -> tuple[Path, Path | None]:
    """Return the store to measure on and the raw graph it was made from, None where that is not known.

    Args:
        given: a store, or a raw graph that is imported into ``work``; None generates the graph of ``size`` there.
        work: folder in which graphs are kept.

    Raises:
        ArtefactError, InputError: There is nothing at ``given`` to run on.
        DiskError: The system refused.
    """
    if given is None:
        raw = _generated(size, work, progress)
    elif not given.exists():
        raise ArtefactError(f"--graph {given} does not exist; name a store, or a raw graph that import takes")
    elif (given / MANIFEST_NAME).is_file():
        return _checked(given), None
    else:
        raw = given
    return _checked(_imported(raw, size, work, progress)), raw


def _generated(size: Size, work: Path, progress: Progress) -> Path:
    spec = SIZES[size].graph
    # The folder's name holds what was asked for, so that another version's graph is not taken for this one.
    raw = work / f"{size}-{fingerprint(asdict(spec))[:8]}-raw"
    if not raw.is_dir():
        _make_folder(work)
        generate(raw, spec, progress=progress)
    return raw


def _imported(raw: Path, size: Size, work: Path, progress: Progress) -> Path:
    name = raw.name.removesuffix("-raw") if raw.parent == work else f"given-{fingerprint(str(raw.resolve()))[:8]}"
    store = work / f"{name}.gs"
    if raw.parent == work and store.is_dir():
        return store  # both are ours and never change; asking import would read all raw files again
    _make_folder(work)
    options = ImportOptions(memory=SIZES[size].import_memory)
    source = open_source(raw, SourceSpec())
    try:
        return import_graph(source, store, options, progress=progress).store
    except StaleArtefactError:  # the raw files changed since
        return import_graph(source, store, options, overwrite=True, progress=progress).store


def _make_folder(work: Path) -> None:
    with disk_errors("write", work):
        work.mkdir(parents=True, exist_ok=True)


def _checked(path: Path) -> Path:
    """Refuse a store on which nothing can be trained.

    Raises:
        InputError: It has several node types, no training nodes or no features.
    """
    store = Store.open(path)
    info = store.node_type(None) if len(store.node_types) == 1 else None
    if info is None or not info.num_features or not store.split(info.name, "train").size:
        raise InputError(f"{path} cannot be measured on: it needs one node type, with features and training nodes")
    store.edge_type_within(info.name)
    return path


def drop_pages(folder: Path) -> None:
    """Let go of the page cache of every file below ``folder``, so that what is read next comes from the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                with disk_errors("read", path), path.open("rb") as file:
                    drop_cache(file.fileno())
            except DiskError:
                continue  # a file that is gone or may not be read has no pages of ours
