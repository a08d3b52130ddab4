"""Exact outputs of a network of layers for all nodes, in one process and in the order of their ids."""

from collections.abc import Iterator

import numpy as np
import torch

from graphsys.core.config import RunConfig
from graphsys.core.progress import Task
from graphsys.core.types import Features, NodeIds
from graphsys.models.layered import LayeredModel
from graphsys.storage.features import ReadCount
from graphsys.storage.store import Store
from graphsys.trainers.objective import resolve_objective
from graphsys.trainers.pipeline.assemble import GraphData, assemble
from graphsys.trainers.pipeline.buffers import Buffers
from graphsys.trainers.pipeline.chunks import ChunkTable
from graphsys.trainers.pipeline.links import Links
from graphsys.trainers.pipeline.shape import Shape
from graphsys.trainers.pipeline.stage_cut import equal_cut

_CHUNK_SHARE = 8  # of the memory budget, as a divisor: one chunk's rows while a layer computes
_ROWS_PER_NODE = 8  # of the network's width, and one of the features


def exact_blocks(
    run: RunConfig,
    model: LayeredModel,
    store: Store,
    node_type: str,
    device: torch.device,
    count: ReadCount,
    work: Task,
) -> Iterator[Features]:
    """Yield the outputs [*, C] float32 of all nodes, layer by layer over chunks of consecutive ids.

    Args:
        model: In evaluation mode on ``device``.
        count: Where to add the bytes of features.
        work: Is advanced by nodes.

    Raises:
        DiskError: Rows do not fit in memory and the disk has no room for them.
    """
    info = store.node_type(node_type)
    width = _ROWS_PER_NODE * (model.hidden_channels + model.shared_channels) + info.num_features
    rows = max(1, run.memory // _CHUNK_SHARE // (4 * width))
    bounds = np.append(np.arange(0, info.num_nodes, rows), info.num_nodes)
    table = ChunkTable(node=np.arange(info.num_nodes), counts=np.diff(bounds)[None])
    none: NodeIds = np.empty(0, np.int64)
    features = store.features(node_type)
    runtime = assemble(
        model,
        GraphData(
            topology=store.topology(store.edge_type_within(node_type)),
            x=features.memmap(),
            y=store.labels(node_type),
            train=none,
        ),
        table,
        Links(Shape(stages=1, ways=1, slots=table.num_slots), 0, run.cluster.timeout),
        cut=equal_cut(model.num_layers, 1),
        objective=resolve_objective(run.task, info),
        config=run.trainer,
        allocate=Buffers(run.out, run.memory, device).allocate,
        device=device,
        exact_only=True,
    )
    count.add(useful_bytes=features.spec.nbytes, read_bytes=features.spec.nbytes)
    runtime.run_layers_exactly()
    with torch.no_grad():
        for slot in range(table.num_slots):
            block: Features = runtime.stage.leave_exactly(slot).cpu().numpy()
            yield block
            work.advance(block.shape[0])
