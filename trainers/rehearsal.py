"""A few steps of the real training on drawn features, thrown away: how long one takes, and how much of all cores."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from graphsys.core.config import RunConfig
from graphsys.core.types import Array, SampledBatch
from graphsys.models.base import BatchModel
from graphsys.storage.codec import row_nbytes
from graphsys.storage.direct import aligned_empty
from graphsys.storage.gather import CpuGather
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.device import exact_torch, resolve_device
from graphsys.trainers.objective import Objective
from graphsys.trainers.state import new_state
from graphsys.trainers.step import Setting, train_step

_STEPS = 5  # the first one also sets up torch; the fastest of the others counts, since all else only adds
_TABLE_ROWS = 1 << 17  # rows that a rehearsed gather takes rows from, as many as leave the processor's caches behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """Seconds per batch."""

    step_s: float  # forward, backward and optimizer
    step_cpu_s: float  # the same, of all cores together
    forward_s: float
    forward_cpu_s: float
    assemble_s: float  # putting the rows of a batch together


def rehearse(
    run: RunConfig, model: BatchModel, objective: Objective, sampled: SampledBatch, y: Array, dim: int
) -> Rehearsal:
    """Time steps on one batch; ``model`` is changed by them.

    Args:
        sampled: The batch.
        y: [B] or [B, C] labels of its seeds.
        dim: Columns of the features (D).
    """
    device = resolve_device(run.trainer)
    x = np.random.default_rng(0).standard_normal((sampled.num_nodes, dim), np.float32)
    batch = MiniBatch.assemble(sampled, x, y, epoch=0).to(device)
    setting = Setting(config=run.trainer, objective=objective, device=device)

    def infer() -> None:
        with torch.inference_mode():
            model(batch)
        _settle(device)

    def step() -> None:
        train_step(state, batch, setting)
        _settle(device)

    with exact_torch(device, run.trainer.threads):
        state = new_state(model, run.trainer, device)
        step_s, step_cpu_s = _fastest(step)
        model.eval()
        forward_s, forward_cpu_s = _fastest(infer)
    assemble_s, _ = _fastest(lambda: _gather(x, run.pack.codec))
    return Rehearsal(
        step_s=step_s, step_cpu_s=step_cpu_s, forward_s=forward_s, forward_cpu_s=forward_cpu_s, assemble_s=assemble_s
    )


def _gather(x: Array, codec: str) -> None:
    """Put rows together from a table, in any order, into ``x``."""
    num_rows, dim = min(_TABLE_ROWS, x.shape[0]), x.shape[1]
    width = row_nbytes(dim, codec)
    table = aligned_empty(num_rows * width).reshape(num_rows, width)
    source = np.random.default_rng(0).integers(0, num_rows, x.shape[0]).astype(np.int32)
    gather = CpuGather(dim, codec, threads=1)
    try:
        gather.gather(table, table[:0], source, x)
    finally:
        gather.close()


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fastest(work: Callable[[], None]) -> tuple[float, float]:
    """Return the least seconds of wall and of all cores, the first call left out."""
    wall, busy = [], []
    for _ in range(_STEPS):
        started, used = time.perf_counter(), time.process_time()
        work()
        wall.append(time.perf_counter() - started)
        busy.append(time.process_time() - used)
    return min(wall[1:]), min(busy[1:])
