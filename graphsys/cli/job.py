"""A run from its first missing stage to its test metrics; what ``train`` and ``demo`` have in common."""

from typing import Any

from graphsys.core.config import RunConfig
from graphsys.core.errors import ArtefactError
from graphsys.core.progress import Progress
from graphsys.deploy.launch import launch, needs_cluster, on_driver
from graphsys.storage.files import write_bytes
from graphsys.storage.manifest import open_sealed_json, sealed_json
from graphsys.storage.run_file import PLAN_NAME
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit
from graphsys.trainers.io_account import total_io
from graphsys.trainers.opening import open_training
from graphsys.trainers.pipeline.account import pipeline_account
from graphsys.trainers.predict import compare, predict, save_prediction
from graphsys.trainers.run_folder import RunFolder


def train_and_evaluate(run: RunConfig, progress: Progress, *, overwrite: bool = False) -> dict[str, Any]:
    """Run every missing stage, train, evaluate all splits exactly; return the result and write it to the run's folder.

    Figures of stages that an earlier call had finished are taken from the result it left.

    Returns:
        Plain JSON values: ``test``, ``val`` and ``train`` metrics, ``epoch_s``, ``stages``, ``plan``, ...
    """
    # First of all, so that a run that is refused for what its folder or its store holds leaves the folder as it was.
    here = on_driver(run)
    job = open_training(here, overwrite=overwrite)
    check = None if job.finished else job.check(progress)
    done = 0 if job.earlier is None else job.earlier.step
    pipeline = run.trainer.strategy == "pipeline"  # whose first process plans, once it has timed the layers
    known = job.finished and (run.out / PLAN_NAME).is_file()
    prediction = None if known or pipeline else predict(here, progress, done_steps=done, compares=False)

    def keep() -> None:
        if prediction is not None:
            save_prediction(prediction, run.out)

    # Before training, so that a killed run has it too.
    train = launch if needs_cluster(run) else fit
    trained = train(run, progress=progress, overwrite=overwrite, check=check, on_start=keep)
    if trained.skipped:
        keep()
    evaluated = evaluate(here, progress, overwrite=overwrite)
    reports = {**trained.stages, "evaluate": evaluated.report}
    if not evaluated.check.skipped:
        reports["check"] = evaluated.check
    earlier = _earlier_result(run, evaluated.checkpoint)
    stages = _with_earlier(earlier, {name: report.as_dict() for name, report in reports.items()})
    plan = open_sealed_json(run.out / PLAN_NAME) if (run.out / PLAN_NAME).is_file() else None
    result = {
        "out": str(run.out),
        "store": str(run.store),
        "checkpoint": str(trained.checkpoint),
        "checkpoint_fingerprint": evaluated.checkpoint,
        **{split: evaluated.metrics.get(split, {}) for split in ("test", "val", "train")},
        "epochs": trained.epochs,
        "best_epoch": trained.best_epoch,
        "epoch_s": list(trained.epoch_s),
        "io": {"total": total_io(list(trained.io), list(trained.epoch_s)), "epochs": list(trained.io)},
        "stages": stages,
        "mode": plan["mode"] if plan else run.trainer.strategy,
        "predicted": [] if pipeline or plan is None else compare(plan["stages"], stages),
        **({"pipeline": pipeline_account(run, plan, stages["train"])} if pipeline else {}),
        "skipped": trained.skipped,
    }
    if earlier is None or not (trained.skipped and evaluated.report.skipped):
        write_bytes(RunFolder(run.out).result, sealed_json(result))
    return result


def _earlier_result(run: RunConfig, checkpoint: str) -> dict[str, Any] | None:
    """Return the result that an earlier call left for ``checkpoint``; None when there is none, or a damaged one."""
    path = RunFolder(run.out).result
    if not path.is_file():
        return None
    try:
        earlier = open_sealed_json(path)
    except ArtefactError:
        return None  # it is about to be written anew
    return earlier if earlier.get("checkpoint_fingerprint") == checkpoint else None


def _with_earlier(earlier: dict[str, Any] | None, stages: dict[str, Any]) -> dict[str, Any]:
    if earlier is None:
        return stages
    return {
        name: {**earlier["stages"].get(name, report), "skipped": True} if report["skipped"] else report
        for name, report in stages.items()
    }
