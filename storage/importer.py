"""Raw graph -> store: nodes, ids, edges, manifest; whole or absent, inside a memory budget."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from graphsys.core.errors import DiskError, InputError, MemoryBudgetError, StaleArtefactError
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress, task
from graphsys.core.types import edge_type_key
from graphsys.core.units import MIB, format_bytes
from graphsys.storage.arrow_memory import return_freed_memory
from graphsys.storage.edge_import import EdgeReader
from graphsys.storage.edge_sort import EdgeRules, build_topology
from graphsys.storage.external_sort import SortBudget
from graphsys.storage.files import atomic_folder, remove_path
from graphsys.storage.flat import FlatSpec
from graphsys.storage.groups import write_groups
from graphsys.storage.id_assign import TableIds, ids_of_edges
from graphsys.storage.id_space import NodeIdSpace
from graphsys.storage.manifest import Manifest, check_replaceable, read_manifest, write_manifest
from graphsys.storage.node_import import NodeResult, import_nodes
from graphsys.storage.provenance import source_parents
from graphsys.storage.source_types import check_names, tables_to_build
from graphsys.storage.sources import EdgeTable, ExternalIds, GraphSource, NodeTable

MIN_MEMORY = 64 * MIB
_CHUNKS = 20 * MIB  # chunks on their way: raw, read ahead, in dense ids, packed; buffers of files being written
_LEAST_WORK = 16 * MIB  # for the look-up of ids and the sort


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What an import does with a raw graph."""

    memory: int  # bytes the import may use; the interpreter comes on top
    undirected: bool = False  # give every edge its reverse, unless it has one
    self_loops: Literal["keep", "drop", "add"] = "keep"  # add: give one to every node that has none
    duplicates: Literal["keep", "drop", "error"] = "keep"  # same source, destination and time
    edge_ids: bool = False  # keep each edge's row of the raw input
    normalize: Literal["none", "row"] = "none"  # row: divide features by the sum of their absolute values

    def config(self) -> dict[str, Any]:
        """Return what shapes the store, as plain JSON; memory does not."""
        values = asdict(self)
        del values["memory"]
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSummary:
    """What an import found and made."""

    store: Path
    fingerprint: str
    nodes: dict[str, dict[str, Any]]  # node type -> counts and schema
    edges: dict[str, dict[str, Any]]  # edge type -> counts of what was read, dropped, added and written
    ignored: tuple[str, ...]  # arrays and columns that were not used
    report: StageReport
    skipped: bool  # the store was there already

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "store": str(self.store),
            "fingerprint": self.fingerprint,
            "nodes": self.nodes,
            "edges": self.edges,
            "ignored": list(self.ignored),
            "report": self.report.as_dict(),
            "skipped": self.skipped,
        }


def import_graph(
    source: GraphSource,
    out: Path,
    options: ImportOptions,
    *,
    overwrite: bool = False,
    progress: Progress = SILENT,
) -> ImportSummary:
    """Make the store ``out`` from a raw graph; an unchanged import is skipped.

    Args:
        overwrite: Replace a store that was made from other files or with other options.

    Raises:
        InputError, NodeIdError: The raw graph cannot be used; the message names the place.
        StaleArtefactError: ``out`` is a store made from something else.
        ArtefactError: ``out`` is no store.
        MemoryBudgetError: The budget is too small.
        DiskError: The system refused. In all cases ``out`` is as it was.
    """
    _check_memory(source, options.memory)
    return_freed_memory()
    with measure("import") as report:
        config = {"options": options.config(), "source": source.config}
        # Asked first, for the checksums of the raw files take a while.
        there = _store_at(out, config, overwrite=overwrite)
        parents = source_parents(source, progress)
        if there is not None and there.parents != parents:
            raise _made_from_other("files", out)
        report.skipped = there is not None
        found = there
        if found is None:
            draft = Manifest(kind="store", config=config, parents=parents, content={})
            with atomic_folder(out, overwrite=overwrite) as folder:
                found = _Build(source, folder, options, progress).run(draft)
                write_manifest(folder, found)
            report.useful_bytes = sum(spec.nbytes for spec in found.arrays.values())
    counts = found.content["import"]
    return ImportSummary(
        store=out,
        fingerprint=found.fingerprint,
        nodes=counts["nodes"],
        edges=counts["edges"],
        ignored=tuple(counts["ignored"]),
        report=report,
        skipped=report.skipped,
    )


def _check_memory(source: GraphSource, memory: int) -> None:
    least = max(MIN_MEMORY, _reading_bytes(source) + _LEAST_WORK)
    if memory < least:
        raise MemoryBudgetError(
            f"import of {source.description} cannot work within {format_bytes(memory)}; give at least "
            f"--memory {-(-least // MIB)}MiB"
        )


def _reading_bytes(source: GraphSource) -> int:
    """Return the memory that passing one table on takes, whichever needs most."""
    nodes = (table.reading_bytes for table in source.nodes)
    return _CHUNKS + max((*nodes, *(table.reading_bytes for table in source.edges)), default=0)


def _store_at(out: Path, config: dict[str, Any], *, overwrite: bool) -> Manifest | None:
    """Return the manifest of the store at ``out`` that was made with ``config``, None when one is to be made."""
    if not out.exists():
        return None
    if overwrite:
        check_replaceable(out, "store")
        return None
    there = read_manifest(out, "store")
    if there.config != config:
        raise _made_from_other("options", out)
    return there


def _made_from_other(what: str, out: Path) -> StaleArtefactError:
    return StaleArtefactError(
        f"{out} is a store made from other {what}; choose another --out, or pass --overwrite to replace it"
    )


class _Build:
    """One import at work in the folder that becomes the store."""

    def __init__(self, source: GraphSource, folder: Path, options: ImportOptions, progress: Progress) -> None:
        self._source = source
        self._folder = folder
        self._options = options
        self._progress = progress
        self._memory = options.memory - _reading_bytes(source)
        self._spill = folder / ".spill"
        check_names(source)
        self._edges = tables_to_build(source.edges, undirected=options.undirected)
        self._arrays: dict[str, FlatSpec] = {}
        self._ids: dict[str, NodeIdSpace] = {}

    def run(self, manifest: Manifest) -> Manifest:
        """Write everything but the manifest, which is returned whole."""
        if not self._source.nodes and not self._edges:
            raise InputError(f"{self._source.description} holds neither nodes nor edges; a graph needs nodes")
        for table in self._source.nodes:
            _check_room(self._folder, table)
        nodes = {table.node_type: self._import_table(table) for table in self._source.nodes}
        for name in self._types_of_edges():
            if name not in nodes:
                nodes[name] = self._import_from_edges(name)
        edges = {edge_type_key(table.edge_type): self._import_edges(table) for table in self._edges}
        remove_path(self._spill)
        return self._manifest(manifest, nodes, edges)

    def _import_table(self, table: NodeTable) -> NodeResult:
        ids = TableIds(self._folder, self._spill, table.node_type, self._memory)
        try:
            with task(self._progress, f"nodes {table.node_type}", table.num_nodes, "nodes") as work:
                result = import_nodes(self._folder, table, ids.add, normalize=self._options.normalize, work=work)
            self._take_ids(ids.close())
        except BaseException:
            ids.abort()
            raise
        self._arrays |= result.arrays
        return result

    def _import_from_edges(self, node_type: str) -> NodeResult:
        with task(self._progress, f"ids of {node_type}", None, "ids") as work:

            def chunks() -> Iterator[ExternalIds]:
                for ids in self._ids_in_edges(node_type):
                    yield ids
                    work.advance(len(ids))

            space = ids_of_edges(self._folder, self._spill, node_type, chunks, self._memory)
        if space.num_nodes == 0:
            raise InputError(f"node type '{node_type}' has neither a table nor edges; a graph needs nodes")
        self._take_ids(space)
        return NodeResult(num_nodes=space.num_nodes)

    def _take_ids(self, space: NodeIdSpace) -> None:
        self._ids[space.node_type] = space
        self._arrays |= space.arrays

    def _ids_in_edges(self, node_type: str) -> Iterator[ExternalIds]:
        for table in self._source.edges:
            src_type, _, dst_type = table.edge_type
            for chunk in table.chunks():
                if src_type == node_type:
                    yield chunk.src
                if dst_type == node_type:
                    yield chunk.dst

    def _types_of_edges(self) -> list[str]:
        """Return the node types that edges name, in the order of their first mention."""
        return list(dict.fromkeys(name for table in self._source.edges for name in table.edge_type[::2]))

    def _import_edges(self, table: EdgeTable) -> dict[str, Any]:
        src_type, _, dst_type = table.edge_type
        share = self._memory // 4
        src_ids = self._ids[src_type].open_lookup(share)
        dst_ids = src_ids if src_type == dst_type else self._ids[dst_type].open_lookup(share)
        held = src_ids.nbytes + (dst_ids.nbytes if dst_ids is not src_ids else 0)
        reader = EdgeReader(table=table, src_ids=src_ids, dst_ids=dst_ids)
        layout = reader.layout(edge_ids=self._options.edge_ids)
        rules = EdgeRules(
            undirected=self._options.undirected,
            self_loops=self._options.self_loops,
            duplicates=self._options.duplicates,
        )
        total = None if table.num_edges is None else 2 * table.num_edges
        title = f"edges {edge_type_key(table.edge_type)}"
        # Closed here and now, also by an error: no thread reads ahead when this function has returned.
        with task(self._progress, title, total, "edges") as work, closing(reader.chunks(layout)) as chunks:
            arrays, counts = build_topology(
                self._folder,
                self._spill,
                table.edge_type,
                chunks,
                layout=layout,
                rules=rules,
                budget=SortBudget.within(self._memory - held, layout.words),
                work=work,
                edge_name=reader.edge_name,
                num_edges=table.num_edges,
            )
        self._arrays |= arrays
        return {
            **counts.as_dict(),
            "has_timestamp": layout.has_timestamp,
            "has_weight": layout.has_weight,
            "num_edge_features": layout.num_edge_features,
            "has_edge_id": layout.has_edge_id,
        }

    def _manifest(self, draft: Manifest, nodes: dict[str, NodeResult], edges: dict[str, dict[str, Any]]) -> Manifest:
        schema = ("has_timestamp", "has_weight", "num_edge_features", "has_edge_id")
        content: dict[str, Any] = {
            "node_types": {name: _node_info(result, self._ids[name]) for name, result in nodes.items()},
            "edge_types": {
                key: {"num_edges": info["edges_written"], **{name: info[name] for name in schema}}
                for key, info in edges.items()
            },
            "classes": {table.node_type: list(table.classes) for table in self._source.nodes if table.classes},
            "import": {
                "nodes": {
                    name: {**_node_info(result, self._ids[name]), "split": result.split_counts}
                    for name, result in nodes.items()
                },
                "edges": {
                    key: {name: value for name, value in info.items() if name not in schema}
                    for key, info in edges.items()
                },
                "ignored": list(self._source.ignored),
            },
        }
        return Manifest(
            kind=draft.kind,
            config=draft.config,
            parents=draft.parents,
            content=content,
            arrays=self._arrays,
            files=write_groups(self._folder, self._arrays),
        )


def _check_room(folder: Path, table: NodeTable) -> None:
    """Refuse a number of nodes that the disk cannot hold, before hours go into writing them."""
    least, free = 8 * (table.num_nodes or 0), shutil.disk_usage(folder).free
    if least > free:
        raise DiskError(
            f"node type '{table.node_type}' is said to have {table.num_nodes:,} nodes, which take "
            f"{format_bytes(least)} at least, but the disk has {format_bytes(free)} free; correct the number, or "
            f"choose a larger disk"
        )


def _node_info(result: NodeResult, space: NodeIdSpace) -> dict[str, Any]:
    return {
        "num_nodes": result.num_nodes,
        "num_features": result.num_features,
        "label_kind": result.label_kind,
        "num_classes": result.num_classes,
        "id_kind": space.kind,
    }
