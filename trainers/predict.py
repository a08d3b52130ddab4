"""What a run would cost in every mode, which one it takes and why; later, the same figures beside the measured ones."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graphsys.core.config import RunConfig
from graphsys.core.errors import ConfigError, MemoryBudgetError
from graphsys.core.progress import SILENT, Progress
from graphsys.core.types import BatchKey, SampledBatch, Topology
from graphsys.models.base import BatchModel
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.samplers.schedule import Schedule
from graphsys.storage.disk_speed import disk_speed
from graphsys.storage.files import write_bytes
from graphsys.storage.manifest import sealed_json
from graphsys.storage.run_file import PLAN_NAME
from graphsys.storage.store import Store
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.budget import plan_run, train_schedule, val_schedule
from graphsys.trainers.cost_model import (
    StageCost,
    Work,
    infer_cost,
    pack_cost,
    sample_cost,
    table_cost,
    train_cost,
)
from graphsys.trainers.device import exact_torch, resolve_device
from graphsys.trainers.layerwise import layer_width
from graphsys.trainers.model_factory import build_model
from graphsys.trainers.objective import resolve_objective, training_nodes
from graphsys.trainers.pilot import run_pilot
from graphsys.trainers.plan import Mode, PackPlan, resolve_pack

MODES: tuple[Mode, ...] = ("memory", "packed", "cached", "direct")
STAGES = ("sample", "pack", "train", "evaluate", "embed")
_TIMED_STEPS = 5  # the first one also sets up torch; the fastest of the others counts


@dataclass(frozen=True, slots=True, kw_only=True)
class ModePrediction:
    """One mode: its plan and costs, or why it cannot be."""

    mode: Mode
    chosen: bool
    why: str  # why it is chosen or impossible; empty otherwise
    plan: PackPlan | None  # None when it is impossible
    stages: dict[str, StageCost]  # sample, pack, train

    @property
    def seconds(self) -> float:
        """Seconds of the stages, were they run one after the other."""
        return sum(cost.seconds for cost in self.stages.values())

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "mode": self.mode,
            "chosen": self.chosen,
            "possible": self.plan is not None,
            "why": self.why,
            "seconds": round(self.seconds, 3),
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
    modes: tuple[ModePrediction, ...]
    stages: dict[str, StageCost]  # of the chosen mode, evaluate and embed included
    work: Work

    @property
    def disk_bytes(self) -> int:
        """Bytes that the run's folder takes at most: windows, layer outputs, embedding table."""
        kept = sum(self.stages[name].device_bytes_written for name in ("evaluate", "embed"))
        return self.plan.disk_bytes + kept

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        pilot = self.work.pilot
        return {
            "mode": self.plan.mode,
            "reason": self.plan.reason,
            "notes": list(self.plan.notes),
            "modes": [mode.as_dict() for mode in self.modes],
            "stages": {name: cost.as_dict() for name, cost in self.stages.items()},
            "disk_bytes": self.disk_bytes,
            "memory_bytes": max(cost.memory_bytes for cost in self.stages.values()),
            "plan": self.plan.as_dict(),
            "disk": self.work.disk.as_dict(),
            "batch": {
                "mean_nodes": round(pilot.mean_nodes, 1),
                "mean_edges": round(pilot.mean_edges, 1),
                "sample_s": round(pilot.seconds_per_batch, 6),
                "step_s": round(self.work.step_s, 6),
                "hit_share": round(pilot.hit_share(self.plan.num_slots), 4),
            },
        }


def predict(run: RunConfig, progress: Progress = SILENT) -> Prediction:
    """Return what every mode would cost, and what the run takes; samples a few batches and takes a few steps.

    Raises:
        MemoryBudgetError, ConfigError: The budgets do not allow the run; the message says what would do.
        ArtefactError, InputError: The store is missing, or has no features or labels to train on.
        DiskError: The disk's speed cannot be measured in the run's folder.
    """
    store = Store.open(run.store)
    info = store.node_type(run.task.node_type)
    topology = store.topology(store.edge_type_within(info.name))
    train = train_schedule(run, training_nodes(store, info.name))
    val_node = store.split(info.name, "val")
    val = val_schedule(run, val_node) if val_node.size else None
    store.features(info.name)
    progress.message("planning: sampling a few batches, timing a few steps and the disk")
    plan = plan_run(run, store, topology, train, val).train
    work = _measure(run, store, topology, train, val)
    costs = _mode_costs(work, plan)
    layer = run.num_layers if run.embed.layer == "last" else run.embed.layer
    inference = infer_cost(work)
    table = table_cost(work, layer, np.dtype(run.embed.dtype).itemsize)
    return Prediction(
        run=run,
        plan=plan,
        modes=tuple(_predict_mode(run, store, topology, train, work, plan, mode) for mode in MODES),
        stages={**costs, "evaluate": inference, "embed": table},
        work=work,
    )


def _mode_costs(work: Work, plan: PackPlan) -> dict[str, StageCost]:
    return {"sample": sample_cost(work, plan), "pack": pack_cost(work, plan), "train": train_cost(work, plan)}


def _predict_mode(
    run: RunConfig, store: Store, topology: Topology, schedule: Schedule, work: Work, chosen: PackPlan, mode: Mode
) -> ModePrediction:
    if mode == chosen.mode:
        costs = _mode_costs(work, chosen)
        return ModePrediction(mode=mode, chosen=True, why=chosen.reason, plan=chosen, stages=costs)
    other = run.model_copy(update={"pack": run.pack.model_copy(update={"mode": mode})})
    try:
        plan = resolve_pack(other, store, schedule, topology, pilot=work.pilot)
    except (MemoryBudgetError, ConfigError) as error:
        return ModePrediction(mode=mode, chosen=False, why=str(error), plan=None, stages={})
    return ModePrediction(mode=mode, chosen=False, why="", plan=plan, stages=_mode_costs(work, plan))


def _measure(run: RunConfig, store: Store, topology: Topology, train: Schedule, val: Schedule | None) -> Work:
    info = store.node_type(run.task.node_type)
    num_outputs = resolve_objective(run.task, info).num_outputs
    model = build_model(run, info.num_features, num_outputs)
    batch = _one_batch(run, topology, train, model)
    step_s, forward_s = _time_steps(run, model, batch, info.num_features)
    validations = run.trainer.epochs // run.trainer.eval_every if val is not None else 0
    return Work(
        pilot=run_pilot(run, train, topology),
        schedule=train,
        num_nodes=info.num_nodes,
        num_edges=topology.num_edges,
        dim=info.num_features,
        topology_bytes=store.topology_nbytes(store.edge_type_within(info.name)),
        layer_dims=(*[run.model.hidden] * (run.num_layers - 1), num_outputs),
        width=layer_width(model, 1),
        memory=run.memory,
        validations=validations,
        val_batches=val.num_batches if val is not None else 0,
        step_s=step_s,
        forward_s=forward_s,
        forward_edges=sum(hop.indices.shape[0] for hop in batch.hops),
        sample_threads=run.sampler.threads or len(os.sched_getaffinity(0)),
        disk=disk_speed(run.out),
    )


def _one_batch(run: RunConfig, topology: Topology, schedule: Schedule, model: BatchModel) -> SampledBatch:
    seeds = schedule.seeds(0)
    key = BatchKey(seed=schedule.seed, epoch=0, batch_id=0)
    return sample_neighbors(
        topology,
        seeds.node,
        run.sampler.fanouts,
        key=key,
        replace=run.sampler.replace,
        weighted=run.sampler.weighted,
        with_degree=model.needs_degree,
    )


def _time_steps(run: RunConfig, model: BatchModel, sampled: SampledBatch, dim: int) -> tuple[float, float]:
    """Return the seconds of a training step and of a forward pass on a batch with drawn features."""
    device = resolve_device(run.trainer)
    x = np.random.default_rng(0).standard_normal((sampled.num_nodes, dim), np.float32)
    batch = MiniBatch.assemble(sampled, x, None, epoch=0).to(device)
    model.to(device).train()

    def forward() -> torch.Tensor:
        output: torch.Tensor = model(batch)
        return output.square().mean()

    def step() -> None:
        model.zero_grad()
        torch.autograd.backward([forward()])
        _settle(device)

    def infer() -> None:
        with torch.no_grad():
            forward()
        _settle(device)

    with exact_torch(device, run.trainer.threads):
        step_s = _fastest(step)
        model.eval()
        return step_s, _fastest(infer)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fastest(work: Any) -> float:
    seconds = []
    for _ in range(_TIMED_STEPS):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


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
