"""Small random graphs in memory, multi-edges, self-loops and isolated nodes included."""

from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from graphsys.core.types import BatchKey, NodeIds, Topology

IdType = Literal["int32", "int64"]


def topology_of(src: npt.ArrayLike, dst: npt.ArrayLike, num_nodes: int, dtype: IdType = "int32") -> Topology:
    """Return the in-edges of a graph given as edge lists of global ids."""
    source, destination = np.asarray(src, np.int64), np.asarray(dst, np.int64)
    order = np.lexsort((source, destination))
    indptr = np.zeros(num_nodes + 1, np.int64)
    np.cumsum(np.bincount(destination, minlength=num_nodes), out=indptr[1:])
    indices = source[order]
    return Topology(
        indptr=indptr,
        indices=indices.astype(np.int32) if dtype == "int32" else indices,
        num_src_nodes=num_nodes,
    )


def random_topology(num_nodes: int, num_edges: int, *, seed: int = 0, dtype: IdType = "int32") -> Topology:
    """Return a graph with hubs: low ids have many edges, most nodes have few."""
    generator = np.random.default_rng(seed)
    ends = (num_nodes * generator.random((2, num_edges)) ** 2).astype(np.int64)
    return topology_of(ends[0], ends[1], num_nodes, dtype)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Graphs of 1 to 40 nodes and up to 200 edges."""
    num_nodes = draw(st.integers(1, 40))
    num_edges = draw(st.integers(0, 200))
    dtype: IdType = draw(st.sampled_from(["int32", "int64"]))
    return random_topology(num_nodes, num_edges, seed=draw(st.integers(0, 1 << 16)), dtype=dtype)


def with_weights(topology: Topology, weight: npt.ArrayLike) -> Topology:
    """Return the same edges with weights [E]."""
    return replace(topology, weight=np.asarray(weight, np.float32))


@st.composite
def weighted_topologies_with_seeds(draw: st.DrawFn) -> tuple[Topology, NodeIds]:
    """As :func:`topologies_with_seeds`, with weights: many alike, some zero, some far larger than all others."""
    topology, seeds = draw(topologies_with_seeds())
    generator = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    kinds = generator.choice([0.0, 0.25, 1.0, 3.5, 1e-30, 1e12], topology.num_edges)
    return with_weights(topology, kinds), seeds


@st.composite
def topologies_with_seeds(draw: st.DrawFn) -> tuple[Topology, NodeIds]:
    """A graph and some of its nodes, in any order, each at most once."""
    topology = draw(topologies())
    size = draw(st.integers(0, topology.num_nodes))
    order = np.random.default_rng(draw(st.integers(0, 1 << 16))).permutation(topology.num_nodes)
    return topology, order[:size].astype(np.int64)


@st.composite
def keys(draw: st.DrawFn) -> BatchKey:
    """Any key of a batch."""
    seed = draw(st.integers(0, (1 << 63) - 1))
    return BatchKey(seed=seed, epoch=draw(st.integers(0, 1000)), batch_id=draw(st.integers(0, 1 << 40)))
