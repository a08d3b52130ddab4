"""An index on disk, beside the table that it belongs to: how it is made, kept and opened."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index

from graphsys.core.errors import ArtefactError, CorruptError, DiskError
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import NodeIds
from graphsys.deploy.lookup import Metric
from graphsys.deploy.serving.calibrate import LADDER, calibrate, make_questions
from graphsys.deploy.serving.distinct import Copies, owners
from graphsys.deploy.serving.exact import ExactSearch
from graphsys.deploy.serving.hnsw import CONNECTIVITY, EXPANSION_ADD, NeighbourGraph, Space, fill, new_index
from graphsys.deploy.serving.settings import Storage
from graphsys.storage.embeddings import EmbeddingTable
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
_RECIPE = 1  # changes when the same settings would give another index
_COPIES, _ASIDE = "copies", "aside"
SCANNED_NUMBERS = 2_560_000  # up to here (20,000 rows of 128) a scan takes about a millisecond: no graph is built
_LEAST_APART = 0.5  # of some rows; a graph of vectors at equal distances takes very long to build, and finds little
_LEAST_DIM = 32  # a shorter row takes no less time to look at
STORAGES = ("bf16", "f32")  # tried in this order: half the bytes, unless vectors are too near to each other for that
_TRIALS = (5_000, 20_000)  # rows
_DOUBT = 4  # a forecast must be that much beyond what is worth its while, for it is a rough one
_ROWS_PER_CANDIDATE = 300  # scanned in the time that a candidate of the graph takes
_WAIT_S = 3600.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which index is wanted, and where."""

    table: EmbeddingTable
    folder: Path
    metric: Metric
    storage: Storage
    threads: int

    @property
    def config(self) -> dict[str, Any]:
        """The settings that decide the index."""
        return {
            "metric": self.metric,
            "storage": self.storage,
            "connectivity": CONNECTIVITY,
            "expansion_add": EXPANSION_ADD,
            "recipe": _RECIPE,
        }

    @property
    def parents(self) -> dict[str, str]:
        """What the index is made from."""
        return {"table": self.table.fingerprint}


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An index, open."""

    graph: NeighbourGraph | None  # None: exact searches only
    content: dict[str, Any]  # of the manifest


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
        node, aside = _of_graph(owner, exact, wanted.metric)
        arrays, files = {}, {}
        built = _best_graph(wanted, exact, node, aside, Copies.of(owner), progress)
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


def _best_graph(
    wanted: Wanted, exact: ExactSearch, node: NodeIds, aside: NodeIds, copies: Copies, progress: Progress
) -> Opened:
    """Return a graph that finds enough at less cost than a scan, or why there is none."""
    content: dict[str, Any] = {"kind": "exact", "num_vectors": int(node.shape[0]), "longest": _longest(exact)}
    most = node.shape[0] // _ROWS_PER_CANDIDATE
    if is_scanned(node.shape[0], exact.vectors.shape[1]):
        reason = f"{node.shape[0]} distinct vectors are scanned at once"
        return Opened(graph=None, content={**content, "recall": {}, "reason": reason})
    if _share_apart(wanted, exact, node) < _LEAST_APART:
        reason = "most vectors are so near to others that a graph could not tell them apart"
        return Opened(graph=None, content={**content, "recall": {}, "reason": reason})
    forecast = _forecast(wanted, exact, node, progress)
    if forecast is not None and forecast > _DOUBT * most:
        reason = f"by trials on some rows a graph would weigh {forecast} candidates, which costs more than a scan"
        return Opened(graph=None, content={**content, "recall": {}, "reason": reason})
    measured = {}
    for storage in STORAGES if wanted.storage == "auto" else (wanted.storage,):
        graph = _filled(wanted, exact, storage, (node, aside, copies), progress)
        found = calibrate(graph, make_questions(exact, node, wanted.metric), most=most, progress=progress)
        if found.expansion is not None:
            told = {"kind": "graph", "stored_as": storage, "expansion": found.expansion, "recall": found.recall}
            return Opened(graph=graph, content={**content, **told})
        graph.close()
        measured = found.recall
    reason = f"a graph that weighs up to {most} candidates found too little, and more cost more than a scan"
    return Opened(graph=None, content={**content, "recall": measured, "reason": reason})


def _share_apart(wanted: Wanted, exact: ExactSearch, node: NodeIds) -> float:
    """Return the share of some rows that differ from all others of them in 16 bits, where the graph would have them."""
    drawn = np.random.default_rng(2).choice(node, min(_TRIALS[0], node.shape[0]), replace=False)
    space = Space(metric=wanted.metric, longest=_longest(exact))
    placed = space.place(exact.vectors[drawn].astype(np.float32, copy=False)).astype(np.float16)
    return float(np.unique(placed, axis=0).shape[0] / drawn.shape[0])


def is_scanned(rows: int, dim: int) -> bool:
    """Whether vectors are so few and short that every search compares with all of them."""
    return rows * max(dim, _LEAST_DIM) <= SCANNED_NUMBERS


def _forecast(wanted: Wanted, exact: ExactSearch, node: NodeIds, progress: Progress) -> int | None:
    """Return how many candidates a graph of all rows would have to weigh, by two trials; None: too few rows to ask."""
    if node.shape[0] < 2 * _TRIALS[-1]:
        return None
    few = _trial(wanted, exact, node, _TRIALS[0], progress)
    many = None if few is None else _trial(wanted, exact, node, _TRIALS[-1], progress)
    if few is None or many is None:
        return LADDER[-1] * int(node.shape[0]) // _TRIALS[-1]
    growth = max(many / few, 1.0)
    steps = math.log(node.shape[0] / _TRIALS[-1]) / math.log(_TRIALS[-1] / _TRIALS[0])
    forecast: int = math.ceil(many * math.exp(math.log(growth) * steps))
    return forecast


def _trial(wanted: Wanted, exact: ExactSearch, node: NodeIds, rows: int, progress: Progress) -> int | None:
    drawn = np.sort(np.random.default_rng(1).choice(node, rows, replace=False))
    few = ExactSearch(exact.vectors[drawn], threads=wanted.threads)
    own = np.arange(rows)
    storage = STORAGES[0] if wanted.storage == "auto" else wanted.storage
    graph = _filled(wanted, few, storage, (own, own[:0], Copies.of(own)), progress)
    found = calibrate(graph, make_questions(few, own, wanted.metric), most=LADDER[-1], progress=progress)
    graph.close()
    few.close()
    return found.expansion


def _may_replace(folder: Path) -> bool:
    """Whether ``folder`` is an index, perhaps damaged or of another table, which a new one may replace.

    Raises:
        ArtefactError: Something else lies there.
    """
    if folder.exists() and not (folder / MANIFEST_NAME).is_file():
        raise ArtefactError(f"{folder} is no index of neighbours; move it away, for the table's index is kept there")
    return folder.exists()


def _of_graph(owner: NodeIds, exact: ExactSearch, metric: Metric) -> tuple[NodeIds, NodeIds]:
    """Return the nodes [U] that the graph holds, and those [Z] without direction that it leaves out."""
    first = owner == np.arange(owner.shape[0])
    if metric != "cosine":
        return np.flatnonzero(first).astype(np.int64), np.empty(0, np.int64)
    flat = exact.lengths == 0
    return np.flatnonzero(first & ~flat).astype(np.int64), np.flatnonzero(flat).astype(np.int64)


def _filled(
    wanted: Wanted, exact: ExactSearch, storage: str, parts: tuple[NodeIds, NodeIds, Copies], progress: Progress
) -> NeighbourGraph:
    node, aside, copies = parts
    space = Space(metric=wanted.metric, longest=_longest(exact))
    index = new_index(space, exact.vectors.shape[1], storage)
    fill(index, space, exact.vectors, node, threads=wanted.threads, progress=progress)
    return NeighbourGraph(index, space, exact.vectors, copies, aside=aside, expansion=LADDER[0], threads=wanted.threads)


def _longest(exact: ExactSearch) -> float:
    return float(np.nanmax(exact.lengths, initial=0)) or 1.0
