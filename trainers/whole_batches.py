"""Exact outputs of a network that only takes whole batches: every node with its whole L-hop neighbourhood."""

from collections.abc import Iterator

import numpy as np
import torch

from graphsys.core.errors import MemoryBudgetError
from graphsys.core.progress import Task
from graphsys.core.types import BatchKey, Features, SampledBatch, Topology
from graphsys.core.units import format_bytes
from graphsys.models.base import BatchModel
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.storage.features import DirectFeatures, FeatureReader, MemoryFeatures
from graphsys.storage.flat import FlatArray
from graphsys.storage.store import Store
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.layerwise import LayerTally, layer_width

MAX_SEEDS = 1024
_SAMPLE_SHARE = 0.25  # of the memory budget, for sampling a batch
_ROWS_SHARE = 0.4  # for all features, where they fit
_STEP_SHARE = 0.5  # for a batch's rows and what the network makes of them
_KEY = BatchKey(seed=0, epoch=0, batch_id=0)  # all neighbours are kept, so nothing is drawn


def run_whole_batches(
    model: BatchModel,
    store: Store,
    node_type: str,
    *,
    memory: int,
    device: torch.device,
    tally: LayerTally,
    task: Task | None = None,
) -> Iterator[Features]:
    """Yield the outputs [*, num_outputs] of all nodes in the order of their ids.

    The batches depend on the arguments only, so a rerun gives the same bytes.

    Args:
        model: In evaluation mode, on ``device``.
        memory: Budget in bytes; batches are as large as it allows.
        task: Is advanced by the nodes done.

    Raises:
        MemoryBudgetError: The neighbourhood of one node does not fit the budget.

    Cost:
        Grows with the number of hops as the neighbourhoods do; a network with ``forward_layer`` does not pay that.
    """
    topology = store.topology(store.edge_type_within(node_type))
    array = store.features(node_type)
    num_nodes, dim, width = topology.num_nodes, array.shape[1], layer_width(model, array.shape[1])
    features = _open_features(array, memory)
    tally.rows = features.count
    try:
        first, count = 0, 1
        while first < num_nodes:
            batch = _sample(model, topology, first, min(count, num_nodes - first), memory)
            needed = 0 if batch is None else _step_nbytes(batch, dim, width)
            if batch is None or needed > _STEP_SHARE * memory:
                _refuse_single(store, node_type, first, count, needed, memory)
                count //= 2
                continue
            yield _outputs(model, batch, features, dim, device)
            tally.chunks += 1
            tally.steps += 1
            if task is not None:
                task.advance(batch.batch_size)
            first += batch.batch_size
            # Twice the seeds have at most about twice the neighbours.
            count = min(2 * count, MAX_SEEDS) if needed <= _STEP_SHARE * memory / 3 else count
    finally:
        features.close()


def _open_features(array: FlatArray, memory: int) -> FeatureReader:
    if array.spec.nbytes <= _ROWS_SHARE * memory:
        return MemoryFeatures(array.read())
    return DirectFeatures(array)


def _sample(model: BatchModel, topology: Topology, first: int, count: int, memory: int) -> SampledBatch | None:
    """Return the whole neighbourhood of ``count`` nodes, or None when sampling it does not fit the budget."""
    seeds = np.arange(first, first + count, dtype=np.int64)
    fanouts = [-1] * model.num_layers
    try:
        return sample_neighbors(
            topology, seeds, fanouts, key=_KEY, with_degree=model.needs_degree, memory=int(memory * _SAMPLE_SHARE)
        )
    except MemoryBudgetError:
        return None


def _step_nbytes(batch: SampledBatch, dim: int, width: int) -> int:
    """Return about how many bytes the network takes: rows, edges, and messages before and after they are weighed."""
    return batch.num_nodes * (4 * dim + 8 * width) + batch.num_edges * (32 + 8 * width)


def _refuse_single(store: Store, node_type: str, node: int, count: int, needed: int, memory: int) -> None:
    if count > 1:
        return
    name = store.id_map(node_type).to_external(np.array([node]))[0]
    wanted = f"takes {format_bytes(needed)}" if needed else "cannot be sampled"
    raise MemoryBudgetError(
        f"{store.path}: the whole neighbourhood of node {name} {wanted} within a memory budget of "
        f"{format_bytes(memory)}; raise memory to {format_bytes(max(needed / _STEP_SHARE, 2 * memory))} or more, or "
        f"give the network a forward_layer (graphsys.models.base.LayerwiseModel), which needs one hop at a time"
    )


def _outputs(
    model: BatchModel, batch: SampledBatch, features: FeatureReader, dim: int, device: torch.device
) -> Features:
    x = np.empty((batch.num_nodes, dim), np.float32)
    features.gather(batch.node, x)
    with torch.no_grad():
        out: Features = model(MiniBatch.assemble(batch, x, None, epoch=0).to(device)).float().cpu().numpy()
    return out
