"""Which layers each stage of a run takes, decided once by measuring and kept in the run's folder.

``cut.json``, sealed: the bounds of the stages, and the measured rates that they follow from. It says what it was made
for; a run that goes on in the same shape takes it again.
"""

from pathlib import Path
from typing import Any

import numpy as np

from graphsys.core.errors import ArtefactError
from graphsys.core.progress import Progress
from graphsys.storage.files import write_bytes
from graphsys.storage.manifest import open_sealed_json, sealed_json
from graphsys.storage.run_file import CUT_NAME, PLAN_NAME
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.network import CostRates
from graphsys.trainers.pipeline.planning import PipelinePlan, Scene, plan_shape
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.stage_cut import StageCut


def ensure_cut(scene: Scene, table: ChunkTable, progress: Progress) -> StageCut:
    """Return the cut of the run's shape, from its folder where an earlier call left it; write it and the plan there.

    The slowest stage is as fast as can be, by the seconds that layers take here for a few chunks.

    Args:
        table: The run's partition.

    Raises:
        ConfigError: There are more stages than layers.
        DiskError: The files cannot be written.
    """
    out = scene.job.run.out
    key = _key(scene)
    known = _read(out / CUT_NAME, key)
    if known is not None:
        cut, plan = known[0], plan_shape(scene, table, known[1])
    else:
        progress.message("timing the network's layers on a few chunks")
        rates = scene.sample(table).rates()
        plan = plan_shape(scene, table, rates)
        cut = plan.own.cut
        write_bytes(out / CUT_NAME, sealed_json({**key, "bounds": list(cut.bounds), "rates": rates.as_dict()}))
    save_plan(plan, out)
    return cut


def save_plan(plan: PipelinePlan, out: Path) -> None:
    """Write a plan into the run's folder.

    Raises:
        DiskError: The system refused.
    """
    write_bytes(out / PLAN_NAME, sealed_json(plan.as_dict()))


def _key(scene: Scene) -> dict[str, Any]:
    """Return what a cut depends on, but for the machine."""
    run, shape = scene.job.run, Shape.of(scene.job.run)
    return {
        "shape": {"stages": shape.stages, "ways": shape.ways, "slots": shape.slots},
        "seed": run.trainer.seed,
        "model": run.resolved()["model"],
        "parents": scene.job.parents,
    }


def _read(path: Path, key: dict[str, Any]) -> tuple[StageCut, CostRates] | None:
    """Return what lies there; None where it is missing, damaged or of another run."""
    if not path.is_file():
        return None
    try:
        found = open_sealed_json(path)
    except ArtefactError:  # it is made again
        return None
    if any(found.get(name) != value for name, value in key.items()):
        return None
    rates = found["rates"]
    return (
        StageCut(bounds=tuple(found["bounds"])),
        CostRates(forward=np.array(rates["forward"]), backward=np.array(rates["backward"])),
    )
