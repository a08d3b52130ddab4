"""A run from its first missing stage to its test metrics; what ``train`` and ``demo`` have in common."""

from typing import Any

from graphsys.core.config import RunConfig
from graphsys.core.errors import ArtefactError
from graphsys.core.progress import Progress
from graphsys.storage.files import write_bytes
from graphsys.storage.manifest import open_sealed_json, sealed_json
from graphsys.storage.run_file import PLAN_NAME
from graphsys.storage.store import Store
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit
from graphsys.trainers.io_account import total_io
from graphsys.trainers.predict import Prediction, compare, predict, save_prediction
from graphsys.trainers.resume import find_earlier, is_finished
from graphsys.trainers.run_folder import RunFolder


def train_and_evaluate(run: RunConfig, progress: Progress, *, overwrite: bool = False) -> dict[str, Any]:
    """Run every missing stage, train, evaluate all splits exactly; return the result and write it to the run's folder.

    Figures of stages that an earlier call had finished are taken from the result it left.

    Returns:
        Plain JSON values: ``test``, ``val`` and ``train`` metrics, ``epoch_s``, ``stages``, ``plan``, ...
    """
    prediction = _predict(run, progress, overwrite=overwrite)
    trained = fit(run, progress=progress, overwrite=overwrite)
    if prediction is not None:
        save_prediction(prediction, run.out)
    evaluated = evaluate(run, progress, overwrite=overwrite)
    reports = (*trained.stages.items(), ("evaluate", evaluated.report))
    stages = _with_earlier(run, {name: report.as_dict() for name, report in reports}, evaluated.checkpoint)
    plan = open_sealed_json(run.out / PLAN_NAME)
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
        "mode": plan["mode"],
        "predicted": compare(plan["stages"], stages),
        "skipped": trained.skipped,
    }
    write_bytes(RunFolder(run.out).result, sealed_json(result))
    return result


def _predict(run: RunConfig, progress: Progress, *, overwrite: bool) -> Prediction | None:
    """Return what the training should cost; None when it is finished and its prediction is kept."""
    # First of all, so that a run that is refused for what its folder holds leaves the folder as it was.
    earlier = None if overwrite else find_earlier(run, Store.open(run.store))
    if earlier is not None and is_finished(run, earlier) and (run.out / PLAN_NAME).is_file():
        return None
    return predict(run, progress, done_steps=0 if earlier is None else earlier.step)


def _with_earlier(run: RunConfig, stages: dict[str, Any], checkpoint: str) -> dict[str, Any]:
    path = RunFolder(run.out).result
    if not path.is_file():
        return stages
    try:
        earlier = open_sealed_json(path)
    except ArtefactError:
        return stages  # damaged; it is about to be written anew
    if earlier.get("checkpoint_fingerprint") != checkpoint:
        return stages
    return {
        name: {**earlier["stages"][name], "skipped": True} if report["skipped"] else report
        for name, report in stages.items()
    }
