"""What exact inference and the table of embeddings should cost; the formulas follow how layers are run."""

import math
from collections.abc import Sequence
from itertools import pairwise

from graphsys.trainers.chunks import ChunkLimits, LayerCost
from graphsys.trainers.cost_model import StageCost
from graphsys.trainers.edge_ranges import EDGE_NBYTES, num_ranges
from graphsys.trainers.pass_rehearsal import PassPace
from graphsys.trainers.passes import PassLimits
from graphsys.trainers.split_cost import START_NBYTES, Work

_LABEL_NBYTES = 9  # of a node: its class and its split


def infer_cost(work: Work, passes: Sequence[PassPace]) -> StageCost:
    """Return the cost of running every layer over all nodes and of scoring what comes out.

    Args:
        passes: How fast layers go as passes over the rows; nothing where they take chunks of edges.

    Raises:
        MemoryBudgetError: The budget does not hold a few edges of some layer.
    """
    shapes = list(pairwise((work.dim, *work.layer_dims)))
    if passes:
        layers = [_pass_cost(work, pace, *shape) for pace, shape in zip(passes, shapes, strict=True)]
    else:
        layers = [_chunk_cost(work, *shape) for shape in shapes]
    scored = work.num_nodes * (4 * work.layer_dims[-1] + _LABEL_NBYTES)
    memory_bytes = max(cost.memory_bytes for cost in layers)
    # What one layer has touched serves the next.
    fresh_s = memory_bytes * work.touch_byte_s
    return StageCost(
        seconds=sum(cost.seconds for cost in layers) + scored / work.disk.read_bytes_s + fresh_s,
        device_bytes_read=sum(cost.device_bytes_read for cost in layers) + scored,
        device_bytes_written=sum(cost.device_bytes_written for cost in layers),
        useful_bytes=sum(cost.useful_bytes for cost in layers) + scored,
        memory_bytes=memory_bytes,
    )


def _pass_cost(work: Work, pace: PassPace, before: int, after: int) -> StageCost:
    state_nbytes = 4 * pace.state_channels
    limits = PassLimits.of(work.memory, dim=before, width=max(before, work.width), state_nbytes=state_nbytes)
    state = work.num_nodes * state_nbytes + work.num_edges * EDGE_NBYTES
    ranges = num_ranges(
        num_nodes=work.num_nodes,
        num_edges=work.num_edges,
        nbytes=limits.range_nbytes,
        state_nbytes=state_nbytes,
        index_nbytes=work.index_nbytes,
    )
    rows = work.num_nodes * before * 4
    read = work.topology_bytes + (ranges + 1) * rows
    read += ranges * work.num_nodes * START_NBYTES if work.needs_degree else 0
    written = work.num_nodes * after * 4
    # A pass over the sources of every edge, then one over the destinations; the disk works beside both.
    own_s = max(work.num_nodes * pace.own_s, rows / work.disk.read_bytes_s + written / work.disk.write_bytes_s)
    edges_s = work.num_edges * pace.edge_s + work.num_nodes * ranges * pace.source_s
    return StageCost(
        seconds=max(edges_s, (read - rows) / work.disk.read_bytes_s) + own_s,
        device_bytes_read=read,
        device_bytes_written=written,
        useful_bytes=work.topology_bytes + rows,
        memory_bytes=min(state, limits.range_nbytes) + limits.fixed_nbytes,
    )


def _chunk_cost(work: Work, before: int, after: int) -> StageCost:
    cost = LayerCost.of(before, max(before, work.width))
    limits = ChunkLimits.of(work.memory, cost)
    rows, written = work.num_nodes * before * 4, work.num_nodes * after * 4
    read = work.topology_bytes + _num_chunks(work, limits) * rows
    compute_s = work.num_edges * work.forward_s / max(work.forward_edges, 1)
    return StageCost(
        seconds=compute_s + read / work.disk.read_bytes_s + written / work.disk.write_bytes_s,
        device_bytes_read=read,
        device_bytes_written=written,
        useful_bytes=work.topology_bytes + rows,
        memory_bytes=min(work.memory, min(work.num_nodes, limits.max_rows) * cost.row + limits.step_bytes),
    )


def table_cost(work: Work, layer: int, itemsize: int) -> StageCost:
    """Return the cost of writing the embedding table of ``layer``, counted from 1, once it is computed."""
    read = work.num_nodes * work.layer_dims[layer - 1] * 4
    written = work.num_nodes * work.layer_dims[layer - 1] * itemsize
    return StageCost(
        seconds=read / work.disk.read_bytes_s + written / work.disk.write_bytes_s,
        device_bytes_read=read,
        device_bytes_written=written,
        useful_bytes=written,
        memory_bytes=0,
    )


def _num_chunks(work: Work, limits: ChunkLimits) -> int:
    """Chunks whose rows are gathered, were sources drawn evenly; 1 when all rows fit at once."""
    if work.num_nodes <= limits.max_rows:
        return 1
    edges = -work.num_nodes * math.log1p(-limits.max_rows / work.num_nodes)
    return math.ceil(work.num_edges / max(min(edges, limits.max_edges), 1.0))
