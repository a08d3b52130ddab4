"""What a run would cost in every mode, which one it takes and why; later, the same figures beside the measured ones."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, MemoryBudgetError
from graphsys.core.machine import cores
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import Topology
from graphsys.models.base import BatchModel
from graphsys.samplers.schedule import Schedule
from graphsys.storage.disk_speed import FILE_BYTES, DiskSpeed, disk_speed, existing_folder, measure_disk
from graphsys.storage.files import write_bytes
from graphsys.storage.manifest import sealed_json
from graphsys.storage.run_file import PLAN_NAME
from graphsys.storage.store import NodeTypeInfo, Store
from graphsys.trainers.budget import plan_run, run_pilots, train_schedule, val_schedule
from graphsys.trainers.choice import in_mode
from graphsys.trainers.cost_model import (
    Paces,
    StageCost,
    before_training_s,
    beside_training_s,
    splits_of,
    stage_costs,
)
from graphsys.trainers.device import exact_torch, resolve_device
from graphsys.trainers.drawn_windows import sample_some
from graphsys.trainers.engine_speed import ASSUMED, EngineSpeed
from graphsys.trainers.fresh_memory import time_fresh_memory
from graphsys.trainers.inference_cost import infer_cost, table_cost
from graphsys.trainers.layerwise import layer_width
from graphsys.trainers.model_factory import build_model
from graphsys.trainers.objective import Objective, resolve_objective, training_nodes
from graphsys.trainers.pass_rehearsal import PassPace, rehearse_passes
from graphsys.trainers.plan import Mode, PackPlan
from graphsys.trainers.rehearsal import Pace, Rehearsal, open_rehearsal
from graphsys.trainers.run_plans import Pilots, RunPlans
from graphsys.trainers.split_cost import Split, Work
from graphsys.trainers.worker_share import as_one_of, share_of_disk, share_of_engine, workers_here

MODES: tuple[Mode, ...] = ("memory", "packed", "cached", "direct")
STAGES = ("sample", "pack", "train", "evaluate", "embed")
_WORTH_S = 2.0  # of making windows beside training, from which on it is rehearsed in that company


@dataclass(frozen=True, slots=True, kw_only=True)
class ModePrediction:
    """One mode: its plan and costs, or why it cannot be."""

    mode: Mode
    chosen: bool
    why: str  # why it is chosen or impossible; empty otherwise
    plans: RunPlans | None  # None when it is impossible
    stages: dict[str, StageCost]  # sample, pack, train
    before_s: float  # seconds until training starts, as the run asks for samples
    epochs: int
    paces: Paces | None = None  # None when it is impossible
    engine: EngineSpeed | None = None  # the speed of packing, in modes that pack

    @property
    def plan(self) -> PackPlan | None:
        """The plan of the training batches; None when the mode is impossible."""
        return None if self.plans is None else self.plans.train

    @property
    def seconds(self) -> float:
        """Seconds until the last epoch ends; windows of fresh samples are made beside training."""
        return self.before_s + (self.stages["train"].seconds if self.stages else 0.0)

    @property
    def epoch_s(self) -> float:
        """Seconds of one epoch."""
        return self.stages["train"].seconds / self.epochs if self.stages else 0.0

    def break_even(self, other: "ModePrediction") -> int | None:
        """Return from how many epochs on this mode takes less time than ``other``; None: never."""
        if self.epoch_s >= other.epoch_s:
            return None
        return max(math.ceil((self.before_s - other.before_s) / (other.epoch_s - self.epoch_s)), 1)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "mode": self.mode,
            "chosen": self.chosen,
            "possible": self.plan is not None,
            "why": self.why,
            "seconds": round(self.seconds, 3),
            "before_s": round(self.before_s, 3),
            "epoch_s": round(self.epoch_s, 3),
            "window_batches": self.plan.window_batches if self.plan else 0,
            "num_windows": self.plan.num_windows if self.plan else 0,
            "disk_bytes": self.plan.disk_bytes if self.plan else 0,
            "memory_bytes": max((cost.memory_bytes for cost in self.stages.values()), default=0),
            "stages": {name: cost.as_dict() for name, cost in self.stages.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a run should cost."""

    run: RunConfig
    plan: PackPlan  # of the training batches
    modes: tuple[ModePrediction, ...]  # the chosen one, and where they are compared the others
    stages: dict[str, StageCost]  # of the chosen mode, evaluate and embed included
    work: Work
    share: float = 1.0  # of the training that lies ahead, and that the stages up to training are the cost of

    @property
    def chosen(self) -> ModePrediction:
        """The mode that the run takes."""
        return next(mode for mode in self.modes if mode.chosen)

    @property
    def pace(self) -> Pace:
        """How fast the training batches of the chosen mode go."""
        assert self.chosen.paces is not None
        return self.chosen.paces.train

    @property
    def disk_bytes(self) -> int:
        """Bytes that the run's folder takes at most: windows, layer outputs, embedding table."""
        kept = sum(self.stages[name].device_bytes_written for name in ("evaluate", "embed"))
        return self.plan.disk_bytes + kept

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        pilot, plan, pace = self.work.pilot, self.plan, self.pace
        fetched = pilot.fetched_rows(plan.num_slots, window=plan.window_batches, num_batches=plan.window_batches)
        return {
            "mode": self.plan.mode,
            "reason": self.plan.reason,
            "notes": list(self.plan.notes),
            "share": self.share,
            "modes": [mode.as_dict() for mode in self.modes],
            "break_even": self.break_even(),
            "stages": {name: cost.as_dict() for name, cost in self.stages.items()},
            "disk_bytes": self.disk_bytes,
            "memory_bytes": max(cost.memory_bytes for cost in self.stages.values()),
            "plan": self.plan.as_dict(),
            "disk": self.work.disk.as_dict(),
            "engine": None if self.chosen.engine is None else self.chosen.engine.as_dict(),
            "batch": {
                "mean_nodes": round(pilot.mean_nodes, 1),
                "mean_edges": round(pilot.mean_edges, 1),
                "sample_s": round(pilot.seconds_per_batch, 6),
                "step_s": round(self.work.step_s, 6),
                "in_training_s": round(pace.batch_s, 6),
                "in_training_cpu_s": round(pace.cpu_s, 6),
                "start_s": round(pace.start_s, 6),
                "company": None if pace.company is None else pace.company.as_dict(),
                "hit_share": round(1 - fetched / (pilot.mean_nodes * plan.window_batches), 4),
            },
        }

    def break_even(self) -> dict[str, int | None]:
        """Return, for each other possible mode, from how many epochs on the chosen one is faster; None: never."""
        return {
            mode.mode: self.chosen.break_even(mode) for mode in self.modes if mode.plan is not None and not mode.chosen
        }


def predict(run: RunConfig, progress: Progress = SILENT, *, done_steps: int = 0, compares: bool = True) -> Prediction:
    """Return what every mode would cost, and what the run takes; samples a few batches and takes a few steps.

    Args:
        done_steps: Steps that an earlier call took; what is predicted is the rest.
        compares: False leaves out the modes that the run does not take, each of which has to be rehearsed.

    Raises:
        MemoryBudgetError, ConfigError: The budgets do not allow the run; the message says what would do.
        ArtefactError, InputError: The store is missing, or has no features or labels to train on.
        DiskError: The disk's speed cannot be measured in the run's folder.
    """
    touch_byte_s = time_fresh_memory(run.memory)
    scene = _Scene.open(run)
    progress.message("planning: sampling a few batches, rehearsing a few steps, timing the disk")
    plans = scene.plans(run)
    workers = workers_here(run)
    disk = _disk_now(scene)
    with as_one_of(workers), _open_rehearsal(scene) as (rehearsal, model):
        work = _measure(scene, rehearsal, model, plans.train, disk, touch_byte_s)
        # The mode that the run takes comes first: buffers used before are faster than those that the run meets.
        others = [mode for mode in MODES if compares and mode != plans.train.mode]
        found = {mode: _predict_mode(scene, work, rehearsal, plans, mode) for mode in (plans.train.mode, *others)}
        modes = tuple(found[mode] for mode in MODES if mode in found)
    chosen = next(mode for mode in modes if mode.chosen)
    layer = run.num_layers if run.embed.layer == "last" else run.embed.layer
    # One process evaluates and embeds, and has the machine to itself.
    alone = replace(work, workers=1, cores=cores(), disk=disk)
    inference = infer_cost(alone, _rehearse_inference(scene, model, alone))
    table = table_cost(alone, layer, np.dtype(run.embed.dtype).itemsize)
    share = 1 - done_steps / max(scene.train.batches_per_epoch * run.trainer.epochs, 1)
    return Prediction(
        run=run,
        plan=plans.train,
        modes=modes,
        stages={
            **{name: cost.times(share) for name, cost in chosen.stages.items()},
            "evaluate": inference,
            "embed": table,
        },
        work=work,
        share=share,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What a prediction is made from."""

    run: RunConfig
    store: Store
    info: NodeTypeInfo
    objective: Objective
    topology: Topology
    train: Schedule
    val: Schedule | None
    pilots: Pilots

    @classmethod
    def open(cls, run: RunConfig) -> "_Scene":
        store = Store.open(run.store)
        info = store.node_type(run.task.node_type)
        topology = store.topology(store.edge_type_within(info.name))
        train = train_schedule(run, training_nodes(store, info.name), world_size=run.cluster.num_workers)
        val_node = store.split(info.name, "val")
        val = val_schedule(run, val_node) if val_node.size else None
        store.features(info.name)
        pilots = run_pilots(run, topology, train, val)
        return cls(
            run=run,
            store=store,
            info=info,
            objective=resolve_objective(run.task, info),
            topology=topology,
            train=train,
            val=val,
            pilots=pilots,
        )

    def plans(self, run: RunConfig) -> RunPlans:
        return plan_run(run, self.store, self.topology, self.train, self.val, self.pilots)


def _predict_mode(scene: _Scene, work: Work, rehearsal: Rehearsal, chosen: RunPlans, mode: Mode) -> ModePrediction:
    run, plans, why = scene.run, chosen, chosen.train.reason
    if mode != chosen.train.mode:
        try:
            plans, why = scene.plans(in_mode(run, mode)), ""
        except (MemoryBudgetError, ConfigError) as error:
            return ModePrediction(
                mode=mode, chosen=False, why=str(error), plans=None, stages={}, before_s=0.0, epochs=run.trainer.epochs
            )
    work, engine = replace(work, sampling=rehearsal.sampling(scene.train, plans.train)), None
    if mode in ("packed", "cached"):
        engine = rehearsal.packing(plans.train)
        work = replace(work, engine=share_of_engine(engine, work.workers))
    paces = _rehearse(work, rehearsal, plans)
    return ModePrediction(
        mode=mode,
        chosen=mode == chosen.train.mode,
        why=why,
        plans=plans,
        stages=stage_costs(work, plans, paces),
        before_s=before_training_s(work, plans),
        epochs=run.trainer.epochs,
        paces=paces,
        engine=engine,
    )


def _rehearse_inference(scene: _Scene, model: BatchModel, work: Work) -> tuple[PassPace, ...]:
    run, device = scene.run, resolve_device(scene.run.trainer)
    edge_type = scene.store.edge_type_within(scene.info.name)
    with exact_torch(device, run.trainer.threads):
        return rehearse_passes(
            model, scene.store, edge_type, dims=(work.dim, *work.layer_dims), memory=run.memory, device=device
        )


def _rehearse(work: Work, rehearsal: Rehearsal, plans: RunPlans) -> Paces:
    train, *rest = splits_of(work, plans)
    beside = train.schedule if beside_training_s(work, plans) > _WORTH_S else None
    with rehearsal.pace(train.plan, fetched=train.fetched, loaded=train.loaded, trains=True, beside=beside) as pace:
        if rest and plans.together:
            return Paces(train=pace, val=_rehearse_val(rehearsal, rest[0]))
    return Paces(train=pace, val=_rehearse_val(rehearsal, rest[0]) if rest else None)


def _rehearse_val(rehearsal: Rehearsal, split: Split) -> Pace:
    with rehearsal.pace(split.plan, fetched=split.fetched, loaded=split.loaded, trains=False) as pace:
        return pace


@contextmanager
def _open_rehearsal(scene: _Scene) -> Iterator[tuple[Rehearsal, BatchModel]]:
    run, store, topology, objective = scene.run, scene.store, scene.topology, scene.objective
    model = build_model(run, scene.info.num_features, objective.num_outputs)
    batches = sample_some(run, store, topology, scene.train, with_degree=model.needs_degree)
    with open_rehearsal(run, store, topology, model, objective, batches) as rehearsal:
        yield rehearsal, model


def _disk_now(scene: _Scene) -> DiskSpeed:
    """Return how fast the disk is in this minute: what it did last week tells one mode from another, but no seconds."""
    remembered = disk_speed(scene.run.out)
    nbytes = min(FILE_BYTES, 4 * scene.info.num_nodes * scene.info.num_features)
    return measure_disk(existing_folder(scene.run.out), nbytes=nbytes, random_reads_s=remembered.random_reads_s)


def _measure(
    scene: _Scene, rehearsal: Rehearsal, model: BatchModel, train_plan: PackPlan, disk: DiskSpeed, touch_byte_s: float
) -> Work:
    run, store, info, val = scene.run, scene.store, scene.info, scene.val
    alone = rehearsal.alone()
    return Work(
        pilot=scene.pilots.train,
        val_pilot=scene.pilots.val,
        schedule=scene.train,
        val_schedule=val,
        num_nodes=info.num_nodes,
        num_edges=scene.topology.num_edges,
        dim=info.num_features,
        topology_bytes=store.topology_nbytes(store.edge_type_within(info.name)),
        layer_dims=(*[run.model.hidden] * (run.num_layers - 1), scene.objective.num_outputs),
        width=layer_width(model, 1),
        needs_degree=model.needs_degree,
        memory=run.memory,
        validations=-(-run.trainer.epochs // run.trainer.eval_every) if val is not None else 0,
        step_s=alone.step_s,
        forward_s=alone.forward_s,
        sampling=rehearsal.sampling(scene.train, train_plan),
        forward_edges=rehearsal.forward_edges,
        sample_threads=run.sampler.threads or cores(),
        touch_byte_s=touch_byte_s,
        cores=cores(),
        disk=share_of_disk(disk, workers_here(run)),
        engine=ASSUMED,  # until a mode that packs has rehearsed it
        workers=workers_here(run),
    )


def save_prediction(prediction: Prediction, out: Path) -> Path:
    """Write the prediction into the run's folder ``out`` as sealed JSON; return the file."""
    path = out / PLAN_NAME
    write_bytes(path, sealed_json(prediction.as_dict()))
    return path


def compare(
    predicted: Mapping[str, Mapping[str, float]], measured: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return one row per stage that was predicted and run, predicted beside measured.

    Args:
        predicted: ``stages`` of a prediction's plain values.
        measured: Stage reports as plain values, by name.

    Returns:
        Rows of ``stage``, and for seconds, device_bytes_read, device_bytes_written and useful_bytes a pair
        (predicted, measured).
    """
    names = ("seconds", "device_bytes_read", "device_bytes_written", "useful_bytes")
    return [
        {"stage": stage, **{name: (predicted[stage][name], measured[stage][name]) for name in names}}
        for stage in STAGES
        if stage in predicted and stage in measured and measured[stage]["seconds"]
    ]
