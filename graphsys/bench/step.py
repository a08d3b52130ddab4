"""Milliseconds of one training step, the batches in memory."""

import time
from collections.abc import Callable, Iterable
from itertools import islice

import numpy as np
import torch

from graphsys.bench.result import Measured
from graphsys.bench.sampler import batches_of
from graphsys.bench.setting import HIDDEN, Setting
from graphsys.core.metrics import measure
from graphsys.core.progress import Progress
from graphsys.core.types import SampledBatch
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.device import exact_torch
from graphsys.trainers.model_factory import build_model
from graphsys.trainers.objective import resolve_objective, training_nodes
from graphsys.trainers.state import new_state
from graphsys.trainers.steady_heap import steady_heap
from graphsys.trainers.step import Setting as StepSetting
from graphsys.trainers.step import train_step

BATCHES = 4
_WARM = 2
_STEPS = 8  # of a round
_PRODUCT = 1024  # rows and columns of the matrices whose product gives the machine's speed
_COPY_BYTES = 256 << 20
_TRIES = 3


def measure_step(setting: Setting, progress: Progress) -> Measured:  # noqa: ARG001 - every part takes one
    """Measure forward, backward and update on a few batches with drawn features, over and over.

    The limit counts what cannot be left out: the products of the layers at the speed of a large one, and one read of
    every edge's source row, forward and backward, at the speed of a copy.
    """
    run = setting.run("step", epochs=1, mode="memory", samples="frozen")
    store, name = setting.open_store()
    info = store.node_type(name)
    objective = resolve_objective(run.task, info)
    device = torch.device("cpu")
    with measure("step") as report, exact_torch(device, setting.threads), steady_heap():
        topology = store.topology(store.edge_type_within(name))
        labels = store.labels(name)
        sampled = list(islice(batches_of(setting, topology, training_nodes(store, name)), BATCHES))
        batches = [_with_rows(batch, info.num_features, labels[batch.node[: batch.batch_size]]) for batch in sampled]
        torch.manual_seed(0)
        state = new_state(build_model(run, info.num_features, objective.num_outputs), run.trainer, device)
        step = StepSetting(config=run.trainer, objective=objective, device=device)
        rounds = []
        for count in (_WARM, *[_STEPS] * setting.rounds):
            started = time.perf_counter()
            for index in range(count):
                train_step(state, batches[index % len(batches)], step)
            rounds.append((time.perf_counter() - started) / count)
        widths = (info.num_features, *[HIDDEN] * (len(setting.fanouts) - 1), objective.num_outputs)
        limit = _least_s(sampled, widths)
    return Measured(
        rounds=tuple(1e3 * seconds for seconds in rounds[1:]),
        limit=1e3 * limit,
        details={
            "nodes_per_batch": float(np.mean([batch.num_nodes for batch in sampled])),
            "edges_per_batch": float(np.mean([batch.num_edges for batch in sampled])),
            "limit_is": "the layers' products and one read of every edge's row, forward and backward",
        },
        peak_memory_bytes={"step": report.peak_rss_bytes},
    )


def _with_rows(sampled: SampledBatch, dim: int, y: np.typing.NDArray[np.generic]) -> MiniBatch:
    x = np.random.default_rng(sampled.batch_id).standard_normal((sampled.num_nodes, dim), np.float32)
    return MiniBatch.assemble(sampled, x, np.ascontiguousarray(y), epoch=0)


def _least_s(batches: Iterable[SampledBatch], widths: tuple[int, ...]) -> float:
    """Return the mean of the least seconds that a step of GraphSAGE takes; ``widths`` are its layers' columns."""
    products_s, copies_s = _product_s(), _copy_bytes_s()
    return float(
        np.mean([_flops(batch, widths) / products_s + _row_bytes(batch, widths) / copies_s for batch in batches])
    )


def _flops(batch: SampledBatch, widths: tuple[int, ...]) -> float:
    """Return the operations of two products per layer (own rows, neighbours' mean), forward and backward.

    Backward takes one product for the weights and one for the input, which the first layer does without.
    """
    total, hops = 0.0, batch.hops[::-1]
    for layer, hop in enumerate(hops):
        one = 2 * 2 * hop.num_dst * widths[layer] * widths[layer + 1]
        total += one * (2 if layer == 0 else 3)
    return total


def _row_bytes(batch: SampledBatch, widths: tuple[int, ...]) -> float:
    """Return the bytes of the rows that cross edges; the first layer has no gradient of its input."""
    total, hops = 0.0, batch.hops[::-1]
    for layer, hop in enumerate(hops):
        # A wide input may be multiplied first, so the narrower side crosses the edges.
        total += 4 * hop.indices.shape[0] * min(widths[layer], widths[layer + 1]) * (1 if layer == 0 else 2)
    return total


def _product_s() -> float:
    """Return the floating-point operations per second of a large product."""
    left, right = torch.randn(_PRODUCT, _PRODUCT), torch.randn(_PRODUCT, _PRODUCT)
    return 2 * _PRODUCT**3 / _fastest(lambda: torch.mm(left, right))


def _copy_bytes_s() -> float:
    """Return the bytes per second that a copy reads."""
    source = torch.ones(_COPY_BYTES // 4)
    target = torch.empty_like(source)
    return _COPY_BYTES / _fastest(lambda: target.copy_(source))


def _fastest(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(1 + _TRIES):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
