"""Commands about runs: plan, sample, pack, train, evaluate, embed."""

from pathlib import Path
from typing import Annotated

import typer

from graphsys.cli.options import Json, Overrides, Overwrite, Quiet, RunFile
from graphsys.cli.output import reporting


def plan(run_file: RunFile, overrides: Overrides = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Predict bytes, seconds, disk and memory of every mode, or of every way to spread a pipeline, and choose one."""
    from graphsys.core.config import load_run

    with reporting(as_json=as_json, quiet=quiet) as output:
        run = load_run(run_file, overrides)
        if run.trainer.strategy == "pipeline":
            from graphsys.cli.pipeline_tables import pipeline_plan_tables
            from graphsys.trainers.pipeline.planning import plan_pipeline

            values = plan_pipeline(run, output.progress).as_dict()
            output.result(values, *pipeline_plan_tables(values))
        else:
            from graphsys.cli.run_tables import plan_tables
            from graphsys.trainers.predict import predict

            values = predict(run, output.progress).as_dict()
            output.result(values, *plan_tables(values))


def sample(
    run_file: RunFile,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Sample ahead of training: all windows of frozen samples, or the first one of fresh samples."""
    _prepare(run_file, overrides, overwrite=overwrite, as_json=as_json, quiet=quiet, pack_too=False)


def pack(
    run_file: RunFile,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pack ahead of training, sampling what is missing: all frozen windows, or the first fresh one."""
    _prepare(run_file, overrides, overwrite=overwrite, as_json=as_json, quiet=quiet, pack_too=True)


def _prepare(
    run_file: Path, overrides: list[str] | None, *, overwrite: bool, as_json: bool, quiet: bool, pack_too: bool
) -> None:
    from graphsys.cli.tables import key_values, stage_table
    from graphsys.core.config import load_run
    from graphsys.trainers.prepare import prepare

    with reporting(as_json=as_json, quiet=quiet) as output:
        run = load_run(run_file, overrides)
        prepared = prepare(run, output.progress, pack=pack_too, overwrite=overwrite)
        values = prepared.as_dict()
        output.result(values, key_values("Windows", values["windows"]), stage_table(values["stages"]))


def train(
    run_file: RunFile,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run every missing stage, train, and evaluate exactly; a run that was interrupted goes on where it stood."""
    from graphsys.cli.job import train_and_evaluate
    from graphsys.cli.run_tables import result_tables
    from graphsys.core.config import load_run

    with reporting(as_json=as_json, quiet=quiet) as output:
        run = load_run(run_file, overrides)
        result = train_and_evaluate(run, output.progress, overwrite=overwrite)
        output.result(result, *result_tables(result))


def evaluate(
    run_file: RunFile,
    overrides: Overrides = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Compute every layer again.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Evaluate a trained run exactly, over all neighbours of every node."""
    from graphsys.cli.run_tables import metric_table
    from graphsys.cli.tables import stage_table
    from graphsys.core.config import load_run
    from graphsys.trainers.evaluate import evaluate as run_evaluate

    with reporting(as_json=as_json, quiet=quiet) as output:
        run = load_run(run_file, overrides)
        result = run_evaluate(run, output.progress, overwrite=overwrite)
        values = result.as_dict()
        output.result(
            values, metric_table(result.metrics), stage_table({"check": values["check"], "evaluate": values["report"]})
        )


def embed(
    run_file: RunFile,
    out: Annotated[
        Path | None, typer.Option("--out", help="Table to write; embeddings.gs in the run's folder by default.")
    ] = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write exact embeddings of all nodes, layer by layer and out of core."""
    from graphsys.cli.tables import key_values, stage_table
    from graphsys.core.config import load_run
    from graphsys.trainers.embed import embed as run_embed

    with reporting(as_json=as_json, quiet=quiet) as output:
        run = load_run(run_file, overrides)
        values = run_embed(run, out, output.progress, overwrite=overwrite).as_dict()
        shown = {key: value for key, value in values.items() if key not in ("check", "report")}
        stages = stage_table({"check": values["check"], "embed": values["report"]})
        output.result(values, key_values("Embedding table", shown), stages)
