"""New nodes with their whole L-hop neighbourhoods, for networks that take nothing less."""

import numpy as np

from graphsys.core.types import BatchKey, Features, NodeIds, SampledBatch, Topology
from graphsys.models.base import BatchModel
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.storage.checked_rows import CheckedRows
from graphsys.trainers.batch import MiniBatch
from graphsys.trainers.new_nodes import Joined, NewNodes, join

_SAMPLE_SHARE = 0.25  # of the memory budget, for the neighbourhood
_KEY = BatchKey(seed=0, epoch=0, batch_id=0)  # all neighbours are kept, so nothing is drawn


def new_batch(
    model: BatchModel, nodes: NewNodes, topology: Topology, features: CheckedRows, *, memory: int
) -> MiniBatch:
    """Return the batch whose seeds are the new nodes; the first hop is theirs, the others are the stored graph's.

    Args:
        features: [N, D] of the known nodes.
        memory: Budget of the run, in bytes.

    Raises:
        MemoryBudgetError: The neighbourhood does not fit.

    Cost:
        Grows with the hops as neighbourhoods do; a network with ``forward_layer`` does not pay that.
    """
    joined = join(nodes)
    known = _known_part(model, joined, topology, memory)
    sampled = _with_new(joined, known, topology.num_nodes)
    x = np.concatenate([nodes.x, features.take(known.node)]).astype(np.float32, copy=False)
    return MiniBatch.assemble(sampled, _contiguous(x), None, epoch=0)


def _contiguous(x: Features) -> Features:
    return np.ascontiguousarray(x)


def _known_part(model: BatchModel, joined: Joined, topology: Topology, memory: int) -> SampledBatch:
    """Return the whole neighbourhoods, of one hop less, of the known nodes that new ones see."""
    hops = model.num_layers - 1
    if hops and joined.known.size:
        return sample_neighbors(
            topology, joined.known, [-1] * hops, key=_KEY, with_degree=True, memory=int(memory * _SAMPLE_SHARE)
        )
    return SampledBatch(
        epoch=0,
        batch_id=0,
        node=joined.known,
        indptr=np.zeros(1, np.int32),
        indices=np.empty(0, np.int32),
        num_sampled_nodes=(joined.known.size, *[0] * hops),
        num_sampled_edges=(0,) * hops,
        in_degree=_in_degree(topology, joined.known).astype(np.int32),
    )


def _in_degree(topology: Topology, node: NodeIds) -> NodeIds:
    return np.asarray(topology.indptr[node + 1] - topology.indptr[node], np.int64)


def _with_new(joined: Joined, known: SampledBatch, num_nodes: int) -> SampledBatch:
    # The known part's seeds stand where the first hop of the new nodes ends, so its positions only move up.
    num_new, num_edges = joined.num_new, joined.source.shape[0]
    assert known.in_degree is not None, "it was asked for"
    return SampledBatch(
        epoch=0,
        batch_id=0,
        node=np.concatenate([num_nodes + np.arange(num_new), known.node]),
        indptr=np.concatenate([joined.indptr, known.indptr[1:].astype(np.int64) + num_edges]).astype(np.int32),
        indices=np.concatenate([joined.source.astype(np.int32), known.indices + np.int32(num_new)]),
        num_sampled_nodes=(num_new, *known.num_sampled_nodes),
        num_sampled_edges=(num_edges, *known.num_sampled_edges),
        in_degree=np.concatenate([joined.degree.astype(np.int32), known.in_degree]),
    )
