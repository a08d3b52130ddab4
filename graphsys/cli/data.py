"""Commands about graphs and artefacts on disk: import, generate, inspect, verify."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphsys.cli.options import Json, Memory, Overwrite, Quiet
from graphsys.cli.output import reporting
from graphsys.core.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from graphsys.storage.sources import GraphSource, SourceSpec

_TABULAR = "Columns of Parquet and CSV files"
_EDGES = "Handling of edges"
_GRAPH = "Shape of the graph"
_SPLIT = "Split"


def import_graph(
    out: Annotated[Path, typer.Option("--out", help="Store to write.", show_default=False)],
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="Raw graph: a file or a folder.", show_default=False)
    ] = None,
    memory: Memory = "1GiB",
    edges: Annotated[
        Path | None, typer.Option(help="Edge file, or a folder of them.", rich_help_panel=_TABULAR)
    ] = None,
    src: Annotated[str, typer.Option(help="Column of source ids.", rich_help_panel=_TABULAR)] = "src",
    dst: Annotated[str, typer.Option(help="Column of destination ids.", rich_help_panel=_TABULAR)] = "dst",
    time: Annotated[str | None, typer.Option(help="Column of timestamps.", rich_help_panel=_TABULAR)] = None,
    weight: Annotated[str | None, typer.Option(help="Column of edge weights.", rich_help_panel=_TABULAR)] = None,
    edge_features: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Columns of edge features, commas between.", rich_help_panel=_TABULAR),
    ] = None,
    nodes: Annotated[
        Path | None, typer.Option(help="Node file, or a folder of them.", rich_help_panel=_TABULAR)
    ] = None,
    id_: Annotated[str, typer.Option("--id", help="Column of node ids.", rich_help_panel=_TABULAR)] = "id",
    label: Annotated[str | None, typer.Option(help="Column of labels.", rich_help_panel=_TABULAR)] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Columns of features, commas between.", rich_help_panel=_TABULAR),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Column that says train, val or test.", rich_help_panel=_TABULAR)
    ] = None,
    node_type: Annotated[str, typer.Option(help="Name of the node type.", rich_help_panel=_TABULAR)] = "node",
    relation: Annotated[str, typer.Option(help="Name of the relation.", rich_help_panel=_TABULAR)] = "to",
    undirected: Annotated[
        bool, typer.Option("--undirected", help="Add the reverse of every edge.", rich_help_panel=_EDGES)
    ] = False,
    self_loops: Annotated[
        Literal["keep", "drop", "add"], typer.Option(help="What happens to self-loops.", rich_help_panel=_EDGES)
    ] = "keep",
    duplicates: Annotated[
        Literal["keep", "drop", "error"], typer.Option(help="What happens to equal edges.", rich_help_panel=_EDGES)
    ] = "keep",
    edge_ids: Annotated[
        bool, typer.Option("--edge-ids", help="Keep each edge's row in the raw input.", rich_help_panel=_EDGES)
    ] = False,
    normalize: Annotated[Literal["none", "row"], typer.Option(help="row: scale feature rows to sum 1.")] = "none",
    split_index: Annotated[int, typer.Option(help="Which split, where a source holds several.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Turn raw files into a store.

    SOURCE may be an .npz file, a folder that graphsys generate wrote, a folder of .npy files, a raw OGB folder, a saved
    PyG (.pt) or DGL (.bin) graph, or an edge file (Parquet, CSV) whose columns the options below name.
    """
    from graphsys.cli.data_tables import import_tables
    from graphsys.storage.importer import ImportOptions
    from graphsys.storage.importer import import_graph as run_import
    from graphsys.storage.sources import SourceSpec

    spec = SourceSpec(
        edges=edges,
        src=src,
        dst=dst,
        time=time,
        weight=weight,
        edge_features=_columns(edge_features),
        nodes=nodes,
        id=id_,
        label=label,
        features=_columns(features),
        split=split,
        split_index=split_index,
        node_type=node_type,
        relation=relation,
    )
    options = ImportOptions(
        undirected=undirected,
        self_loops=self_loops,
        duplicates=duplicates,
        edge_ids=edge_ids,
        normalize=normalize,
        memory=parse_bytes(memory),
    )
    with reporting(as_json=as_json, quiet=quiet) as output:
        raw = _open_raw(source, spec)
        summary = run_import(raw, out, options, overwrite=overwrite, progress=output.progress)
        values = summary.as_dict()
        output.result(values, *import_tables(values))


def _open_raw(source: Path | None, spec: "SourceSpec") -> "GraphSource":
    if source is not None and source.suffix in (".pt", ".pth", ".bin"):
        from graphsys.trainers.interop import load_graph_file

        return load_graph_file(source, split_index=spec.split_index)
    from graphsys.storage.open_source import open_source

    return open_source(source, spec)


def _columns(names: list[str] | None) -> tuple[str, ...]:
    return tuple(name.strip() for group in names or () for name in group.split(",") if name.strip())


def generate(
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes.", show_default=False)],
    edges: Annotated[int, typer.Option(min=0, help="Number of edges.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.", show_default=False)],
    features: Annotated[int, typer.Option(min=1, help="Features per node.")] = 64,
    classes: Annotated[int, typer.Option(min=2, help="Number of classes.")] = 16,
    communities: Annotated[
        int | None, typer.Option(min=1, help="Communities; one per class by default.", rich_help_panel=_GRAPH)
    ] = None,
    homophily: Annotated[
        float, typer.Option(help="Share of edges that stay in a community.", rich_help_panel=_GRAPH)
    ] = 0.7,
    exponent: Annotated[float, typer.Option(help="Exponent of the degrees' power law.", rich_help_panel=_GRAPH)] = 2.5,
    signal: Annotated[
        float, typer.Option(help="Distance of two classes' means, in deviations.", rich_help_panel=_GRAPH)
    ] = 1.5,
    train: Annotated[
        float | None,
        typer.Option(help="Share of training nodes; 0.5, but at most 100,000, by default.", rich_help_panel=_SPLIT),
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(help="Share of validation nodes; 0.2, but at most 50,000, by default.", rich_help_panel=_SPLIT),
    ] = None,
    test: Annotated[float, typer.Option(help="Share of test nodes.", rich_help_panel=_SPLIT)] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same bytes.")] = 0,
    memory: Memory = "1GiB",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a synthetic power-law graph with communities, features and labels, in the form that import takes."""
    from graphsys.cli.tables import key_values, stage_table
    from graphsys.storage.community_graph import GenerateSpec
    from graphsys.storage.generate import generate as run_generate

    spec = GenerateSpec(
        nodes=nodes,
        edges=edges,
        features=features,
        classes=classes,
        communities=communities,
        seed=seed,
        homophily=homophily,
        signal=signal,
        exponent=exponent,
        train=train,
        val=val,
        test=test,
    )
    with reporting(as_json=as_json, quiet=quiet) as output:
        values = run_generate(out, spec, memory=parse_bytes(memory), overwrite=overwrite, progress=output.progress)
        stage = values["stage"]
        shown = {key: value for key, value in values.items() if key != "stage"}
        output.result(values, key_values("Generated", shown), stage_table({"generate": stage}))


def inspect(
    path: Annotated[Path, typer.Argument(help="Store, window, checkpoint, table or run folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Say what a store, window, checkpoint, embedding table or run folder holds."""
    from graphsys.cli.data_tables import artefact_list, artefact_tables
    from graphsys.storage.inspect import inspect as run_inspect

    with reporting(as_json=as_json, quiet=True) as output:
        found = run_inspect(path)
        if "artefacts" in found:
            output.result(found, artefact_list(path, found["artefacts"]))
        else:
            output.result(found, *artefact_tables(found))


def verify(
    path: Annotated[Path, typer.Argument(help="Store, window, checkpoint, table or run folder.", show_default=False)],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read everything below PATH and check every checksum; exit code 2 names every difference."""
    from graphsys.storage.verify import verify as run_verify

    with reporting(as_json=as_json, quiet=quiet) as output:
        report = run_verify(path, progress=output.progress)
        count = len(report.artefacts)
        sentence = f"{path}: {count} artefacts, {format_bytes(report.nbytes)}, every byte as it was written"
        output.result({**report.as_dict(), "num_artefacts": count, "ok": True}, sentence)
