"""What exact inference and the table of embeddings should cost; the formulas follow how layers are run."""

import math
from itertools import pairwise

from graphsys.trainers.chunks import ChunkLimits, LayerCost
from graphsys.trainers.cost_model import START_NBYTES, StageCost, Work
from graphsys.trainers.edge_ranges import EDGE_NBYTES, num_ranges
from graphsys.trainers.passes import PassLimits

# Seconds of one core per edge of a layer, and per column of its state: sorting, messages, sums, outputs; measured.
ADD_EDGE_S = 6e-8
ADD_CHANNEL_S = 1e-9
_LABEL_NBYTES = 9  # of a node: its class and its split
_BLOCK_SHARE = 8  # of the memory, as a divisor: blocks of rows that pass by


def infer_cost(work: Work) -> StageCost:
    """Return the cost of running every layer over all nodes and of scoring what comes out.

    Raises:
        MemoryBudgetError: The budget does not hold a few edges of some layer.
    """
    dims = (work.dim, *work.layer_dims)
    layer = _pass_cost if work.state_channels else _chunk_cost
    layers = [layer(work, index, before, after) for index, (before, after) in enumerate(pairwise(dims))]
    scored = work.num_nodes * (4 * work.layer_dims[-1] + _LABEL_NBYTES)
    return StageCost(
        seconds=sum(cost.seconds for cost in layers) + scored / work.disk.read_bytes_s,
        device_bytes_read=sum(cost.device_bytes_read for cost in layers) + scored,
        device_bytes_written=sum(cost.device_bytes_written for cost in layers),
        useful_bytes=sum(cost.useful_bytes for cost in layers) + scored,
        memory_bytes=max(cost.memory_bytes for cost in layers),
    )


def _pass_cost(work: Work, index: int, before: int, after: int) -> StageCost:
    channels = work.state_channels[index]
    limits = PassLimits.of(
        work.memory,
        num_nodes=work.num_nodes,
        dim=before,
        width=max(before, work.width),
        state_nbytes=4 * channels,
    )
    state = work.num_nodes * 4 * channels + work.num_edges * EDGE_NBYTES
    ranges = num_ranges(
        num_nodes=work.num_nodes,
        num_edges=work.num_edges,
        nbytes=limits.range_nbytes,
        state_nbytes=4 * channels,
        index_nbytes=work.index_nbytes,
    )
    rows = work.num_nodes * before * 4
    read = work.topology_bytes + (rows if limits.is_resident else (ranges + 1) * rows)
    read += ranges * work.num_nodes * START_NBYTES if work.needs_degree else 0
    written = work.num_nodes * after * 4
    compute_s = work.num_edges * (ADD_EDGE_S + ADD_CHANNEL_S * channels) / work.sample_threads
    return StageCost(
        seconds=max(read / work.disk.read_bytes_s, compute_s) + written / work.disk.write_bytes_s,
        device_bytes_read=read,
        device_bytes_written=written,
        useful_bytes=work.topology_bytes + rows,
        memory_bytes=min(work.memory, state + (rows if limits.is_resident else 0) + work.memory // _BLOCK_SHARE),
    )


def _chunk_cost(work: Work, index: int, before: int, after: int) -> StageCost:
    del index
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
