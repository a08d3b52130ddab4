"""Batches sampled by groups, their edges read past memory, are those of one batch at a time."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from helpers.reference_sampler import same_batch
from helpers.stored_topologies import stored
from helpers.topologies import keys, topologies
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.types import BatchKey, NodeIds, Topology
from graphsys.core.units import KIB, MIB
from graphsys.samplers.expansion import Drawing
from graphsys.samplers.grouped import sample_groups
from graphsys.samplers.neighbor import sample_neighbors

# From one batch per group to all of them; the largest graph has 200 edges, and a batch of it takes some 10 KiB.
MEMORIES = [14 * KIB, 30 * KIB, 80 * KIB, 16 * MIB]


@settings(deadline=None, max_examples=150)
@given(
    topology=topologies(),
    key=keys(),
    fanouts=st.lists(st.integers(-1, 6), max_size=3),
    replace=st.booleans(),
    with_degree=st.booleans(),
    shares=st.lists(st.floats(0, 1), max_size=9),
    memory=st.sampled_from(MEMORIES),
    threads=st.integers(1, 2),
)
def test_groups_of_any_size_give_the_same_batches_bit_for_bit(
    topology: Topology,
    key: BatchKey,
    fanouts: list[int],
    replace: bool,
    with_degree: bool,
    shares: Sequence[float],
    memory: int,
    threads: int,
) -> None:
    seeds = [
        (_some(topology.num_nodes, share, index), BatchKey(seed=key.seed, epoch=key.epoch, batch_id=index))
        for index, share in enumerate(shares)
    ]
    drawing = Drawing(fanouts=tuple(fanouts), replace=replace, with_degree=with_degree)
    # With replacement a batch may have many times the graph's edges.
    memory += 2 * 56 * drawing.most_edges(40, topology.num_edges) if replace else 0
    with TemporaryDirectory() as folder:
        groups = sample_groups(stored(Path(folder), topology), seeds, drawing, threads=threads, memory=memory)
        with closing(groups):
            found = list(groups)
    assert len(found) == len(seeds)
    for batch, (node, batch_key) in zip(found, seeds, strict=True):
        expected = sample_neighbors(topology, node, fanouts, key=batch_key, replace=replace, with_degree=with_degree)
        assert same_batch(batch, expected)


def _some(num_nodes: int, share: float, seed: int) -> NodeIds:
    return np.random.default_rng(seed).permutation(num_nodes)[: round(share * num_nodes)].astype(np.int64)
