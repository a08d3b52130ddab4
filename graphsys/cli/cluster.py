"""The command that sends a run to a cluster: submit."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphsys.cli.options import Json, Overrides, RunFile
from graphsys.cli.output import json_line

if TYPE_CHECKING:
    from graphsys.deploy.jobs import JobOutcome


def submit(
    run_file: RunFile,
    address: Annotated[
        str | None,
        typer.Option("--address", help="The cluster's job server, such as http://127.0.0.1:8265.", show_default=False),
    ] = None,
    overrides: Overrides = None,
    wheel: Annotated[
        str | None,
        typer.Option("--wheel", help="Wheel of graphsys, for a cluster that has another version."),
    ] = None,
    emit_k8s: Annotated[
        bool, typer.Option("--emit-k8s", help="Submit nothing; print a KubeRay RayJob manifest of the run.")
    ] = False,
    image: Annotated[
        str | None, typer.Option("--image", help="With --emit-k8s: container image with Ray and graphsys.")
    ] = None,
    volume: Annotated[
        str | None,
        typer.Option("--volume", help="With --emit-k8s: claim:/path of the volume with store and run folder."),
    ] = None,
    code: Annotated[
        str | None, typer.Option("--code", help="With --emit-k8s: address of a .zip of your own model code.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train on a Ray cluster as a job, follow its log, and end with its exit code.

    The job gets the run file and the code of model.class, nothing else: the store and the run's folder must lie where
    the cluster sees them under the same paths, and graphsys of this version must be installed there.
    """
    from graphsys.core.config import load_run
    from graphsys.core.errors import ConfigError

    run = load_run(run_file, overrides)
    _refuse_mixed(
        emit_k8s,
        job={"--address": address, "--wheel": wheel},
        manifest={"--image": image, "--code": code, "--volume": volume},
    )
    if emit_k8s:
        from graphsys.deploy.kuberay import ray_job

        if image is None:
            raise ConfigError("--emit-k8s needs --image: an image with Ray and graphsys, such as me/graphsys:1")
        manifest = ray_job(run, image=image, ray_version=_ray_version(), code=code, volume=volume)
        sys.stdout.write(manifest if not as_json else json_line({"manifest": manifest}) + "\n")
        if volume is None:
            sys.stderr.write(
                f"note: no --volume is given, so the image itself must hold {run.store}, and "
                f"{run.out} goes with the pods\n"
            )
        return
    if address is None:
        raise ConfigError("submit needs --address, the cluster's job server, such as http://127.0.0.1:8265")
    from graphsys.deploy.jobs import submit as submit_job

    stream = sys.stderr if as_json else sys.stdout

    def show(text: str) -> None:
        stream.write(text)
        stream.flush()

    outcome = submit_job(run, address, show, wheel=None if wheel is None else Path(wheel), as_json=as_json)
    if as_json:
        sys.stdout.write(json_line(_values(outcome)) + "\n")
    raise typer.Exit(outcome.exit_code)


def _refuse_mixed(emit_k8s: bool, *, job: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Refuse options that the other of the two ways to send a job would take, and this one would not look at."""
    from graphsys.core.errors import ConfigError

    foreign = [name for name, value in (job if emit_k8s else manifest).items() if value is not None]
    if not foreign:
        return
    if emit_k8s:
        raise ConfigError(
            f"{' and '.join(foreign)} sends a job now, and --emit-k8s only prints its manifest, whose --image holds "
            f"graphsys; leave one of them out"
        )
    raise ConfigError(
        f"{' and '.join(foreign)} goes with --emit-k8s; a job for --address takes its code from model.class"
    )


def _ray_version() -> str:
    from importlib.metadata import version

    return version("ray")


def _values(outcome: "JobOutcome") -> dict[str, Any]:
    values = {"job": outcome.job, "status": outcome.status, "exit_code": outcome.exit_code}
    return {**values, "result": _result(outcome.log)}


def _result(log: str) -> Any:
    """Return the last line of a log that is a JSON object, which the job ends with; None when there is none."""
    for line in reversed(log.splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except ValueError:
                continue
    return None
