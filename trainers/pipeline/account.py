"""What a finished training with strategy ``pipeline`` sent, waited and held, beside what its plan foretold."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from graphsys.core.config import RunConfig
from graphsys.trainers.logs import read_log
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.slots import SlotForecast, forecast_passes
from graphsys.trainers.pipeline.training import TURNS_NAME
from graphsys.trainers.run_folder import RunFolder

Turns = Sequence[Sequence[Mapping[str, Any]]]  # by rank, in the order in which they were taken


def pipeline_account(run: RunConfig, plan: Mapping[str, Any] | None, train: Mapping[str, Any]) -> dict[str, Any]:
    """Return shape, cut, and rows of ``what``, ``unit``, ``predicted`` and ``measured``, as plain JSON values.

    Args:
        run: Its folder holds the logs of the training.
        plan: What :meth:`PipelinePlan.as_dict` returned for it; None where it is lost.
        train: The report of stage ``train``, as plain values.
    """
    shape = Shape.of(run)
    path = RunFolder(run.out).logs / TURNS_NAME
    said = json.loads(path.read_bytes()) if path.is_file() else {"shape": [], "turns": []}
    lines = [line for line in read_log(RunFolder(run.out).logs) if line["kind"] == "epoch"]
    # Another call may have had another shape.
    mine = [line for line in lines if len(line["pipeline"]["busy_s"]) == shape.world_size]
    own = plan["run"] if plan is not None and _is_of(plan, shape) else None
    measured = {
        **_epochs(mine, shape),
        **(_slots(slots_of(said["turns"], shape)) if said["shape"] == list(astuple(shape)) else {}),
        **_memory(train["details"].get("processes", []), shape),
    }
    predicted = {} if own is None else _predicted(own)
    return {
        "stages": shape.stages,
        "ways": shape.ways,
        "chunks": shape.num_chunks,
        "cut": None if own is None else own["cut"],
        "rows": [
            {"what": what, "unit": unit, "predicted": predicted.get(what), "measured": measured.get(what)}
            for what, unit in _units(shape)
            if what in measured or what in predicted
        ],
    }


def _is_of(plan: Mapping[str, Any], shape: Shape) -> bool:
    own = plan.get("run", {})
    return (own.get("stages"), own.get("ways"), own.get("chunks")) == (shape.stages, shape.ways, shape.num_chunks)


def _units(shape: Shape) -> list[tuple[str, str]]:
    return [
        ("epoch", "seconds"),
        ("epoch, computing in slots", "seconds"),
        ("bubble, in slots", "share"),
        ("waiting", "share"),
        ("sent between stages", "bytes"),
        ("sent between ways", "bytes"),
        ("sent to sum gradients of weights", "bytes"),
        *((f"memory of stage {stage}", "bytes") for stage in range(shape.stages)),
    ]


def _predicted(own: Mapping[str, Any]) -> dict[str, float]:
    slots, sent = own["slots"], own["bytes"]
    return {
        "epoch": own["epoch_s"],
        "epoch, computing in slots": slots["epoch_s"],
        "bubble, in slots": slots["bubble"],
        "sent between stages": sent["boundary"],
        "sent between ways": sent["exchange"],
        "sent to sum gradients of weights": sent["reduce"],
        **{f"memory of stage {stage}": memory["total"] for stage, memory in enumerate(own["memory"])},
    }


def _epochs(lines: Sequence[Mapping[str, Any]], shape: Shape) -> dict[str, float]:
    """Return what the epochs took and sent, each on average."""
    if not lines:
        return {}
    accounts = [line["pipeline"] for line in lines]
    seconds = sum(line["seconds"] for line in lines)
    busy = sum(sum(account["busy_s"]) for account in accounts)
    sent = {name: sum(account["bytes_sent"][name] for account in accounts) / len(lines) for name in _SENT}
    return {
        "epoch": seconds / len(lines),
        "waiting": max(1 - busy / (shape.world_size * seconds), 0.0),
        **{_SENT[name]: int(count) if count == int(count) else count for name, count in sent.items()},
    }


_SENT = {
    "boundary": "sent between stages",
    "exchange": "sent between ways",
    "reduce": "sent to sum gradients of weights",
}


def _slots(slots: SlotForecast) -> dict[str, float]:
    return {"epoch, computing in slots": slots.epoch_s, "bubble, in slots": slots.bubble}


def _memory(processes: Sequence[Mapping[str, int]], shape: Shape) -> dict[str, float]:
    """Return the bytes of each stage's largest process."""
    if len(processes) != shape.world_size:
        return {}
    return {
        f"memory of stage {stage}": max(processes[rank]["data_bytes"] for rank in shape.stage_ranks(stage))
        for stage in range(shape.stages)
    }


def slots_of(turns: Turns, shape: Shape, *, times: str = "compute_s") -> SlotForecast:
    """Return the slots of an epoch whose turns were recorded: each lasts as long as the longest computing in it.

    What a process waits, and for whom, is left out, so that processes which share cores are not seen to wait.

    Args:
        turns: Of every rank, each with ``phase``, ``slot`` and ``times``.
        times: Which seconds are counted; ``cpu_s`` are those of one thread.
    """
    compute = {phase: np.zeros((shape.stages, shape.ways, shape.slots)) for phase in ("forward", "backward")}
    for rank, own in enumerate(turns):
        for turn in own:
            compute[turn["phase"]][shape.stage_of(rank), shape.way_of(rank), turn["slot"]] = turn[times]
    order = [turn["slot"] for turn in turns[0] if turn["phase"] == "forward"]
    return forecast_passes(compute["forward"].max(axis=1), compute["backward"].max(axis=1), order)
