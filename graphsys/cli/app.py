"""The commands of ``graphsys``, by name and group."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.main import get_command

import graphsys
from graphsys.cli import bench, cluster, data, demo, project, report, runs, serve, vectors

_FIRST, _DATA, _RUN, _USE, _MEASURE = "First", "Graphs and files", "Runs", "Results", "Speed"

# name, function, group, example
COMMANDS: tuple[tuple[str, Callable[..., None], str, str], ...] = (
    ("demo", demo.demo, _FIRST, "graphsys demo --out digits-demo"),
    ("import", data.import_graph, _DATA, "graphsys import cora.npz --out cora.gs --normalize row"),
    (
        "generate",
        data.generate,
        _DATA,
        "graphsys generate --nodes 1000000 --edges 16000000 --features 64 --classes 16 --out raw",
    ),
    ("inspect", data.inspect, _DATA, "graphsys inspect cora.gs"),
    ("verify", data.verify, _DATA, "graphsys verify runs/cora"),
    ("plan", runs.plan, _RUN, "graphsys plan run.yaml --set memory=2GiB"),
    ("sample", runs.sample, _RUN, "graphsys sample run.yaml"),
    ("pack", runs.pack, _RUN, "graphsys pack run.yaml --set sampler.samples=frozen"),
    ("train", runs.train, _RUN, "graphsys train run.yaml --set trainer.epochs=10 --set trainer.lr=0.003"),
    ("submit", cluster.submit, _RUN, "graphsys submit run.yaml --address http://127.0.0.1:8265"),
    ("evaluate", runs.evaluate, _RUN, "graphsys evaluate run.yaml --json"),
    ("embed", runs.embed, _RUN, "graphsys embed run.yaml --out embeddings.gs"),
    ("report", report.report, _USE, "graphsys report runs/cora"),
    ("serve", serve.serve, _USE, "graphsys serve runs/cora/embeddings.gs --port 8080"),
    ("lookup", vectors.lookup, _USE, "graphsys lookup runs/cora/embeddings.gs --id 42 --k 5"),
    ("project", project.project, _USE, "graphsys project runs/cora/embeddings.gs --method umap --points 20000"),
    ("export", vectors.export, _USE, "graphsys export runs/cora/embeddings.gs --to parquet --out cora.parquet"),
    ("bench", bench.bench, _MEASURE, "graphsys bench loader --json"),
)


def command() -> Any:
    """Return the whole program, ready to be called with arguments."""
    return get_command(application())


def application() -> typer.Typer:
    """Return the program with all its commands."""
    app = typer.Typer(
        help="Train graph neural networks on graphs bigger than memory, and serve what they learned.",
        epilog="Exit codes: 0 done, 2 something to mend (one sentence says what), 1 a bug. First try: graphsys demo",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name, function, group, example in COMMANDS:
        app.command(name, rich_help_panel=group, help=_paragraphs(function), epilog=f"Example: {example}")(function)
    return app


def _paragraphs(function: Callable[..., None]) -> str:
    # The help keeps line breaks, and those of a docstring stand in the middle of sentences.
    return "\n\n".join(" ".join(text.split()) for text in inspect.cleandoc(function.__doc__ or "").split("\n\n"))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"graphsys {graphsys.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Hold the options of the program itself."""
