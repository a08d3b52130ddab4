"""Which mode a run with ``pack.mode: auto`` trains in; ``plan`` and ``train`` ask here alike.

What fits into memory is held there. Otherwise the modes that the budgets allow are compared by the seconds in which the
disk packs and reads their rows over all epochs, as the cost model has it. Nothing is rehearsed: steps are the same in
every mode, and so is sampling unless one leaves it the memory to map the edges and another does not.
"""

from dataclasses import replace

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, MemoryBudgetError
from graphsys.core.types import Topology
from graphsys.core.units import format_bytes, format_seconds
from graphsys.samplers.schedule import Schedule
from graphsys.storage.disk_speed import disk_speed
from graphsys.storage.store import Store
from graphsys.trainers.engine_speed import engine_speed
from graphsys.trainers.pilot import Pilot
from graphsys.trainers.plan import Mode, PackPlan, memory_mode_nbytes, resolve_pack
from graphsys.trainers.split_cost import Ground, Split

MEMORY_MODE_SHARE = 0.8  # of the budget that features, topology and buffers may take in mode auto
_DISK_MODES: tuple[Mode, ...] = ("packed", "cached", "direct")  # the first of equals is taken


def choose_pack(run: RunConfig, store: Store, schedule: Schedule, topology: Topology, pilot: Pilot) -> PackPlan:
    """Return the plan of a schedule's batches in the mode that the run names or, where that is auto, in the cheapest.

    The disk is measured where that was not done for long, and the choice depends on it; batches and weights are the
    same in every mode.

    Raises:
        MemoryBudgetError, ConfigError: As :func:`graphsys.trainers.plan.resolve_pack`; for auto, no mode is possible.
        DiskError: The disk's speed cannot be measured in the run's folder.
    """
    if run.pack.mode != "auto":
        return resolve_pack(run, store, schedule, topology, pilot=pilot)
    wanted = memory_mode_nbytes(run, store, schedule, pilot)
    size = f"features, topology and buffers take {format_bytes(wanted)}"
    if wanted <= MEMORY_MODE_SHARE * run.memory:
        plan = resolve_pack(in_mode(run, "memory"), store, schedule, topology, pilot=pilot)
        return replace(plan, reason=f"{size} of the memory budget")
    return _cheapest(run, store, schedule, topology, pilot, f"{size}, more than the memory budget holds")


def in_mode(run: RunConfig, mode: Mode) -> RunConfig:
    """Return the run with ``pack.mode`` set."""
    return run.model_copy(update={"pack": run.pack.model_copy(update={"mode": mode})})


def _cheapest(
    run: RunConfig, store: Store, schedule: Schedule, topology: Topology, pilot: Pilot, too_big: str
) -> PackPlan:
    plans: dict[Mode, PackPlan] = {}
    refusals: dict[Mode, MemoryBudgetError | ConfigError] = {}
    for mode in _DISK_MODES:
        try:
            plan = resolve_pack(in_mode(run, mode), store, schedule, topology, pilot=pilot)
        except (MemoryBudgetError, ConfigError) as error:
            refusals[mode] = error
        else:
            if plan.num_slots or mode != "cached":  # without a slot it is the direct mode, and packs for nothing
                plans[mode] = plan
    if not plans:
        raise refusals["direct"]  # the mode that asks for least
    refused = "".join(f"; {mode} is not possible: {error}" for mode, error in refusals.items() if mode == "packed")
    if len(plans) == 1:
        (plan,) = plans.values()
        return replace(plan, reason=f"{too_big}{refused}")
    info = store.node_type(run.task.node_type)
    ground = Ground(
        num_nodes=info.num_nodes, dim=info.num_features, disk=disk_speed(run.out), engine=engine_speed(run.out)
    )
    epochs = schedule.epochs
    seconds = {
        mode: Split(work=ground, pilot=pilot, plan=plan, schedule=schedule, passes=epochs, starts=1).rows_s
        for mode, plan in plans.items()
    }
    best = min(plans, key=lambda mode: seconds[mode])
    shown = ", ".join(
        f"{format_seconds(seconds[mode])} {mode}" for mode in sorted(plans, key=lambda mode: seconds[mode])
    )
    return replace(plans[best], reason=f"{too_big}; packing and reading rows takes the disk about {shown}{refused}")
