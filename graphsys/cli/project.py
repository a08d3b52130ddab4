"""The command ``project``: the 2-D map of an embedding table, computed ahead."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from graphsys.cli.options import Json, Overwrite, Quiet
from graphsys.cli.output import reporting
from graphsys.core.errors import StaleArtefactError


def project(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Embedding table.", show_default=False)],
    method: Annotated[
        Literal["pca", "umap"], typer.Option(help="pca: linear, seconds. umap: shows clusters better, minutes.")
    ] = "pca",
    points: Annotated[int, typer.Option(help="Most points on the map; more rows are sampled evenly.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Seed of the sample, and of UMAP.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute the 2-D map that the page of `graphsys serve` draws, and save it beside the table (TABLE.map).

    Without it, `serve` computes the pca map of 100,000 points whenever it loads the table.
    """
    from graphsys.deploy.serving.map_folder import map_path, save_projection
    from graphsys.deploy.serving.projection import MapSettings, compute_projection
    from graphsys.storage.embeddings import EmbeddingTable

    with reporting(as_json=as_json, quiet=quiet) as output:
        settings = MapSettings(method=method, points=points, seed=seed)
        opened = EmbeddingTable.open(table)
        path = map_path(table)
        projection = None if overwrite or not path.exists() else _current(opened, settings)
        skipped = projection is not None
        if projection is None:
            projection = compute_projection(opened, settings, output.progress)
            save_projection(opened, projection, overwrite=overwrite)
        explained = [] if projection.axes is None else [round(share, 4) for share in projection.axes.explained]
        values: dict[str, Any] = {
            "path": path,
            "version": opened.version,
            **settings.as_dict(),
            "num_points": projection.num_points,
            "num_rows": projection.num_rows,
            "left_out": projection.left_out,
            "explained": explained,
            "seconds": projection.seconds,
            "skipped": skipped,
        }
        output.result(values, _sentence(values))


def _current(table: Any, settings: Any) -> Any:
    """Return the map that is saved already, where it is what is asked for.

    Raises:
        StaleArtefactError: It is another one.
    """
    from graphsys.deploy.serving.map_folder import map_path, read_projection

    saved = read_projection(table)
    if saved.settings != settings:
        was = ", ".join(f"{key} {value}" for key, value in saved.settings.as_dict().items())
        raise StaleArtefactError(
            f"{map_path(table.path)} was made otherwise ({was}); pass --overwrite to replace it, or ask for the same"
        )
    return saved


def _sentence(values: dict[str, Any]) -> str:
    made = "is up to date" if values["skipped"] else f"was computed in {values['seconds']:.1f} s"
    share = f", {sum(values['explained']):.0%} of the variance" if values["explained"] else ""
    left = f"; {values['left_out']:,} rows that are not finite have no place" if values["left_out"] else ""
    counts = f"{values['num_points']:,} of {values['num_rows']:,} rows"
    return f"{values['path']}: a {values['method']} map of {counts}{share}, {made}{left}"
