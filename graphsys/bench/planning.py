"""How far the planner's prediction is from what a run then measures."""

from typing import Any

from graphsys.bench.graph import drop_pages
from graphsys.bench.result import Measured
from graphsys.bench.setting import Setting
from graphsys.core.progress import Progress
from graphsys.core.units import MIB
from graphsys.trainers.evaluate import evaluate
from graphsys.trainers.fit import fit
from graphsys.trainers.predict import compare, predict

_EPOCHS = 2
_LEAST = {"seconds": 0.5, "device_bytes_read": 16 * MIB, "device_bytes_written": 16 * MIB}


def measure_plan(setting: Setting, progress: Progress) -> Measured:
    """Predict a run, run it, and return the worst relative error of any stage's seconds or device bytes.

    Figures below half a second or 16 MiB, predicted and measured, are left out: nothing depends on them.
    """
    run = setting.run("plan", epochs=_EPOCHS, mode="packed", samples="fresh")
    # As `train` has it: the planner's pilot reads the topology from the disk, and the run finds it in the page cache.
    drop_pages(setting.store)
    prediction = predict(run, progress, compares=False)
    predicted = prediction.as_dict()
    trained = fit(run, progress=progress)
    evaluated = evaluate(run, progress)
    stages = {**trained.stages, "evaluate": evaluated.report}
    rows = compare(predicted["stages"], {name: report.as_dict() for name, report in stages.items()})
    errors = relative_errors(rows)
    return Measured(
        rounds=(max(errors.values(), default=0.0),),
        details={
            "mode": prediction.plan.mode,
            "errors": errors,
            "predicted_and_measured": rows,
            "batch": predicted["batch"],
        },
        peak_memory_bytes={name: report.peak_rss_bytes for name, report in stages.items()},
    )


def relative_errors(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return |predicted - measured| / measured by "stage.figure"; ``rows`` are :func:`compare`'s."""
    found = {}
    for figure, least in _LEAST.items():
        for row in rows:
            predicted, measured = row[figure]
            if max(predicted, measured) >= least:
                found[f"{row['stage']}.{figure}"] = abs(predicted - measured) / max(measured, 1e-9)
    return found
