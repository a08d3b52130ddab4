"""How training and validation share one memory budget and one disk budget."""

from dataclasses import replace

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, MemoryBudgetError
from graphsys.core.types import NodeIds, Topology
from graphsys.samplers.schedule import Schedule
from graphsys.storage.store import Store
from graphsys.trainers.choice import choose_pack, in_mode
from graphsys.trainers.pilot import Pilot, run_pilot
from graphsys.trainers.plan import Mode, PackPlan, resolve_pack
from graphsys.trainers.run_plans import Pilots, RunPlans


def train_schedule(run: RunConfig, node: NodeIds, *, rank: int = 0, world_size: int = 1) -> Schedule:
    """Return one worker's batches of all epochs over the training nodes ``node`` [*], global ids."""
    sampler = run.sampler
    return Schedule(
        nodes=node,
        batch_size=sampler.batch_size,
        seed=sampler.seed,
        epochs=run.trainer.epochs,
        samples=sampler.samples,
        rank=rank,
        world_size=world_size,
    )


def val_schedule(run: RunConfig, node: NodeIds) -> Schedule:
    """Return one pass over the validation nodes ``node`` [*]; every validation takes the same batches."""
    sampler = run.sampler
    return Schedule(
        nodes=node, batch_size=sampler.batch_size, seed=sampler.seed, epochs=1, samples="frozen", shuffle=False
    )


def run_pilots(run: RunConfig, topology: Topology, train: Schedule, val: Schedule | None) -> Pilots:
    """Sample a few batches of each schedule. Raises as :func:`graphsys.trainers.pilot.run_pilot`."""
    return Pilots(train=run_pilot(run, train, topology), val=None if val is None else run_pilot(run, val, topology))


def plan_run(
    run: RunConfig,
    store: Store,
    topology: Topology,
    train: Schedule,
    val: Schedule | None,
    pilots: Pilots | None = None,
) -> RunPlans:
    """Return the plans of both schedules, within ``run.memory`` and ``run.pack.disk`` at every moment.

    Validation takes the mode of training where the budgets allow it, and reads rows directly where they do not. Its
    windows are made before training starts. Its batches are open beside those of training when training loses no cache
    by that, and instead of them otherwise.

    Args:
        pilots: Batches sampled already; None samples some.

    Raises:
        MemoryBudgetError, ConfigError, DiskError: As :func:`graphsys.trainers.choice.choose_pack`.
    """
    pilots = pilots or run_pilots(run, topology, train, val)
    pilot = pilots.train
    alone = choose_pack(run, store, train, topology, pilot)
    run = in_mode(run, alone.mode)
    if val is None or pilots.val is None:
        return RunPlans(train=alone, val=None, together=True, pilots=pilots)
    val_plan = _plan_val(run, store, topology, val, alone, pilots.val)
    disk = run.pack.disk - val_plan.disk_bytes

    def plan_train(memory: int) -> PackPlan:
        plan = resolve_pack(run, store, train, topology, memory=memory, disk=disk, pilot=pilot)
        return replace(plan, reason=alone.reason)

    try:
        beside = plan_train(run.memory - _open_bytes(val_plan))
    except MemoryBudgetError:
        beside = None
    if beside is not None and (beside.mode, beside.num_slots) == (alone.mode, alone.num_slots):
        return RunPlans(train=beside, val=val_plan, together=True, pilots=pilots)
    surplus = max(_open_bytes(val_plan) - _open_bytes(alone), 0)
    return RunPlans(train=plan_train(run.memory - surplus), val=val_plan, together=False, pilots=pilots)


def _plan_val(
    run: RunConfig, store: Store, topology: Topology, schedule: Schedule, train: PackPlan, pilot: Pilot
) -> PackPlan:
    disk = run.pack.disk // 2
    if train.mode != "direct":
        try:
            return resolve_pack(_free(run, train.mode), store, schedule, topology, disk=disk, pilot=pilot)
        except (MemoryBudgetError, ConfigError):
            if train.mode == "memory":
                raise
    return resolve_pack(_free(run, "direct"), store, schedule, topology, disk=disk, pilot=pilot)


def _free(run: RunConfig, mode: Mode) -> RunConfig:
    """Return the run in another mode, with windows as long as suits it."""
    moded = in_mode(run, mode)
    return moded.model_copy(update={"pack": moded.pack.model_copy(update={"window": "auto"})})


def _open_bytes(plan: PackPlan) -> int:
    """Bytes that open batches hold; what mode memory shares between both schedules is left out."""
    return plan.working_bytes + plan.cache_bytes
