"""Neighbour sampling as its definition reads: plain Python, whole numbers of any size, no buffers, no tricks."""

from collections.abc import Sequence
from itertools import count

import numpy as np

from graphsys.core.seeding import GOLDEN, MASK64, batch_stream, mix64
from graphsys.core.types import BatchKey, NodeIds, SampledBatch, Topology


def _draw(key: int, counter: int) -> int:
    return mix64((key + (counter + 1) * GOLDEN) & MASK64)


def _below(word: int, size: int) -> int:
    return (word * size) >> 64


def _floyd(key: int, degree: int, kept: int) -> list[int]:
    chosen: list[int] = []
    for counter, last in enumerate(range(degree - kept, degree)):
        position = _below(_draw(key, counter), last + 1)
        chosen.append(last if position in chosen else position)
    return chosen


def _selection(key: int, degree: int, kept: int) -> list[int]:
    chosen: list[int] = []
    for position in range(degree):
        if _below(_draw(key, position), degree - position) < kept - len(chosen):
            chosen.append(position)
    return chosen


def reference_positions(key: int, degree: int, fanout: int, *, replace: bool = False) -> list[int]:
    """Return the positions that a node of ``degree`` in-edges keeps."""
    if fanout < 0 or degree == 0:
        return list(range(degree))
    if replace:
        return [_below(_draw(key, counter), degree) for counter in range(fanout)]
    if degree <= fanout:
        return list(range(degree))
    return _floyd(key, degree, fanout) if fanout * fanout < 32 * degree else _selection(key, degree, fanout)


def reference_weighted_positions(key: int, weight: list[float], fanout: int, *, replace: bool = False) -> list[int]:
    """Return the positions that a node keeps whose in-edges weigh ``weight``."""
    if fanout < 0:
        return list(range(len(weight)))
    weighing = [position for position, value in enumerate(weight) if value > 0]
    wanted = (fanout if replace else min(fanout, len(weighing))) if weighing else 0
    chosen: list[int] = []
    reach, vain, counter = _reach(weight, []), 0, 0
    while len(chosen) < wanted:
        value = (_draw(key, counter) >> 11) * 2.0**-53 * reach[-1][1]
        counter += 1
        position = next((at for at, reached in reach if value < reached), reach[-1][0])
        if replace or position not in chosen:
            chosen.append(position)
        elif (vain := vain + 1) == 8:
            reach, vain = _reach(weight, chosen), 0
    return chosen


def _reach(weight: list[float], without: list[int]) -> list[tuple[int, float]]:
    """Return (position, sum of the weights up to it) of all positions that weigh something and are not taken yet."""
    total, reach = 0.0, []
    for position, value in enumerate(weight):
        if value > 0 and position not in without:
            total += value
            reach.append((position, total))
    return reach


def reference_sample(
    topology: Topology,
    seeds: NodeIds,
    fanouts: Sequence[int],
    *,
    key: BatchKey,
    replace: bool = False,
    weighted: bool = False,
    with_degree: bool = False,
) -> SampledBatch:
    """Return what ``sample_neighbors`` must return, bit for bit."""
    local = {int(seed): index for index, seed in enumerate(seeds)}
    new_ids = count(len(local))
    frontier = list(local)
    indptr, num_nodes = [0], [len(local)]
    indices: list[int] = []
    num_edges: list[int] = []
    for hop, fanout in enumerate(fanouts):
        hop_key = _draw(batch_stream(key), hop)
        reached: list[int] = []
        for node in frontier:
            begin, end = int(topology.indptr[node]), int(topology.indptr[node + 1])
            node_key = _draw(hop_key, node)
            if weighted:
                assert topology.weight is not None
                weight = topology.weight[begin:end].tolist()
                positions = reference_weighted_positions(node_key, weight, fanout, replace=replace)
            else:
                positions = reference_positions(node_key, end - begin, fanout, replace=replace)
            for position in positions:
                source = int(topology.indices[begin + position])
                if source not in local:
                    local[source] = next(new_ids)
                    reached.append(source)
                indices.append(local[source])
            indptr.append(len(indices))
        num_nodes.append(len(reached))
        num_edges.append(len(indices) - sum(num_edges))
        frontier = reached
    reached_ids = np.array(list(local), np.int64)
    return SampledBatch(
        epoch=key.epoch,
        batch_id=key.batch_id,
        node=reached_ids,
        indptr=np.array(indptr, np.int32),
        indices=np.array(indices, np.int32),
        num_sampled_nodes=tuple(num_nodes),
        num_sampled_edges=tuple(num_edges),
        in_degree=np.diff(topology.indptr)[reached_ids].astype(np.int32) if with_degree else None,
    )


def same_batch(left: SampledBatch, right: SampledBatch) -> bool:
    """Whether two batches agree in every value and type."""
    arrays = ("node", "indptr", "indices", "in_degree")
    plain = ("epoch", "batch_id", "num_sampled_nodes", "num_sampled_edges")
    return all(getattr(left, name) == getattr(right, name) for name in plain) and all(
        _same_array(getattr(left, name), getattr(right, name)) for name in arrays
    )


def _same_array(left: object, right: object) -> bool:
    if not isinstance(left, np.ndarray) or not isinstance(right, np.ndarray):
        return left is right
    return left.dtype == right.dtype and bool(np.array_equal(left, right))
