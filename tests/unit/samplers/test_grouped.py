"""Sampling by groups: where it is chosen, what it reads and takes, how it fails."""

import os
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.reference_sampler import same_batch
from helpers.stored_topologies import stored
from helpers.topologies import IdType, random_topology, topology_of, with_weights

from graphsys.core.errors import CorruptError, MemoryBudgetError, NodeIdError
from graphsys.core.types import BatchKey, NodeIds, SampledBatch, Topology
from graphsys.core.units import KIB, MIB
from graphsys.samplers.ahead import sample_batches
from graphsys.samplers.expansion import BYTES_PER_EDGE, Drawing
from graphsys.samplers.grouped import sample_groups
from graphsys.samplers.neighbor import sample_neighbors
from graphsys.samplers.offline import sample_nodes, sample_window
from graphsys.samplers.schedule import Schedule
from graphsys.storage.direct_ids import DirectIds
from graphsys.storage.store import StoredTopology

GRAPH = random_topology(20_000, 600_000, seed=1)  # 2.4 MB of indices
SCHEDULE = Schedule(nodes=np.arange(0, 20_000, 5), batch_size=64, seed=9, epochs=1, samples="fresh")
DRAWING = Drawing(fanouts=(4, 3), with_degree=True)
SMALL, LARGE = 2 * MIB, 64 * MIB  # memory with which the graph does not fit beside a batch, and does


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> StoredTopology:
    return stored(tmp_path_factory.mktemp("graph"), GRAPH)


def unmapped(topology: StoredTopology) -> StoredTopology:
    """Return the same topology with a map of indices that shows other edges than the file."""
    return replace(topology, indices=np.zeros_like(topology.indices))


def grouped(
    topology: StoredTopology, positions: range, *, drawing: Drawing = DRAWING, threads: int = 2, memory: int = SMALL
) -> Iterator[SampledBatch]:
    seeds = [(SCHEDULE.seeds(position).node, SCHEDULE.key(position)) for position in positions]
    with closing(sample_groups(topology, seeds, drawing, threads=threads, memory=memory)) as batches:
        yield from batches


def alone(position: int, topology: Topology = GRAPH) -> SampledBatch:
    seeds, key = SCHEDULE.seeds(position).node, SCHEDULE.key(position)
    return sample_neighbors(topology, seeds, DRAWING.fanouts, key=key, with_degree=True)


def test_edges_are_read_from_the_file_and_not_through_the_map(graph: StoredTopology) -> None:
    found = list(grouped(unmapped(graph), range(20)))
    assert all(same_batch(batch, alone(position)) for position, batch in enumerate(found))
    assert len(found) == 20


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_a_topology_that_does_not_fit_is_read_by_groups_and_one_that_fits_through_its_map(
    tmp_path: Path, dtype: IdType
) -> None:
    topology = replace(GRAPH, indices=GRAPH.indices.astype(dtype))
    shown = unmapped(stored(tmp_path, topology))
    for memory, file in ((SMALL, True), (LARGE, False)):
        with closing(sample_batches(shown, SCHEDULE, range(3), DRAWING, threads=2, memory=memory)) as batches:
            assert same_batch(next(batches), alone(0)) == file


def test_weighted_draws_go_through_the_maps(graph: StoredTopology) -> None:
    weight = np.random.default_rng(0).random(GRAPH.num_edges).astype(np.float32)
    drawing = replace(DRAWING, weighted=True)
    seeds, key = SCHEDULE.seeds(0).node, SCHEDULE.key(0)
    expected = sample_neighbors(
        with_weights(GRAPH, weight), seeds, drawing.fanouts, key=key, weighted=True, with_degree=True
    )
    heavy = replace(graph, weight=weight)
    with closing(sample_batches(heavy, SCHEDULE, range(1), drawing, threads=1, memory=SMALL)) as batches:
        assert same_batch(next(batches), expected)


def write(path: Path, topology: Topology, *, memory: int, threads: int = 2, fanouts: tuple[int, ...] = (4, 3)) -> bytes:
    sample_window(
        topology, SCHEDULE, range(3, 30), path, fanouts=fanouts, with_degree=True, labels=np.arange(20_000),
        threads=threads, fingerprint="f" * 32, window_index=0, memory=memory,
    )  # fmt: skip
    return path.read_bytes()


def test_the_file_of_a_window_depends_on_neither_the_way_nor_threads_nor_memory(
    graph: StoredTopology, tmp_path: Path
) -> None:
    expected = write(tmp_path / "memory", GRAPH, memory=LARGE)
    assert write(tmp_path / "mapped", graph, memory=LARGE) == expected
    for memory in (1400 * KIB, SMALL, 2500 * KIB):
        for threads in (1, 2, 5):
            assert write(tmp_path / "grouped", unmapped(graph), memory=memory, threads=threads) == expected


def test_batches_without_seeds_are_sampled_too(graph: StoredTopology) -> None:
    none = np.empty(0, np.int64)
    seeds = [(none, SCHEDULE.key(0)), (SCHEDULE.seeds(1).node, SCHEDULE.key(1)), (none, SCHEDULE.key(2))]
    for chosen in (seeds, seeds[:1]):
        found = list(sample_groups(graph, chosen, DRAWING, threads=2, memory=SMALL))
        assert [batch.batch_size for batch in found] == [len(node) for node, _ in chosen]


def test_the_nodes_of_batches_are_the_same_by_groups(graph: StoredTopology) -> None:
    options: dict[str, Any] = {"fanouts": (4, 3), "threads": 2, "memory": SMALL}
    found = sample_nodes(unmapped(graph), SCHEDULE, range(20), **options)
    assert all(np.array_equal(node, alone(position).node) for position, node in enumerate(found))


@pytest.fixture(scope="module", params=["int32", "int64"])
def sparse(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> StoredTopology:
    """Few edges repeat a node: the worst case for memory."""
    topology = random_topology(200_000, 800_000, seed=2, dtype=request.param)
    return stored(tmp_path_factory.mktemp("sparse"), topology)


def peak_of(topology: StoredTopology, seeds: list[NodeIds], fanouts: tuple[int, ...], memory: int) -> int:
    """Return the peak while batches of ``seeds`` are sampled by groups on three threads, and used one by one."""
    jobs = [(node, BatchKey(seed=1, epoch=0, batch_id=index)) for index, node in enumerate(seeds)]
    drawing = Drawing(fanouts=fanouts, with_degree=True)
    tracemalloc.start()
    for _ in sample_groups(topology, jobs, drawing, threads=3, memory=memory):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def allowed(memory: int, num_seeds: int) -> int:
    """Return the peak that ``memory`` allows, threads and seeds included; an eighth, of read buffers, is not traced."""
    return memory * 7 // 8 + 128 * KIB + 64 * num_seeds


@pytest.mark.parametrize("factor", [1.3, 4, 12])
@pytest.mark.parametrize("fanouts", [(3, 3, 3), (1, 1, 1, 1), (-1, 2), (8,)])
def test_groups_take_no_more_memory_than_they_may(
    sparse: StoredTopology, fanouts: tuple[int, ...], factor: float
) -> None:
    seeds = [np.arange(index, 200_000, 100) for index in range(12)]
    peak_of(sparse, seeds[:1], fanouts, 64 * MIB)  # compiles
    size = max(sample_neighbors(sparse, node, fanouts, key=SCHEDULE.key(0)).num_edges for node in seeds)
    memory = int(factor * BYTES_PER_EDGE * size)
    assert peak_of(sparse, seeds, fanouts, memory) < allowed(memory, 2000)


def test_batches_larger_than_those_before_them_still_fit(sparse: StoredTopology) -> None:
    # The first ones promise groups of dozens.
    seeds = [np.arange(0, 200_000, step) for step in [4000] * 30 + [40] * 5 + [4000] * 30]
    peak_of(sparse, seeds[:1], (3, 3), 64 * MIB)  # compiles
    largest = sample_neighbors(sparse, seeds[32], (3, 3), key=SCHEDULE.key(32)).num_edges
    memory = int(1.4 * BYTES_PER_EDGE * largest)
    assert peak_of(sparse, seeds, (3, 3), memory) < allowed(memory, 5000)


def test_a_batch_beyond_the_memory_is_refused(graph: StoredTopology) -> None:
    with pytest.raises(MemoryBudgetError, match=r"batch 0 of epoch 0 .* lower sampler.batch_size"):
        list(grouped(graph, range(3), memory=20 * KIB))


def test_a_seed_outside_the_graph_is_named(graph: StoredTopology) -> None:
    seeds = [(np.array([3, 20_000]), SCHEDULE.key(0))]
    with pytest.raises(NodeIdError, match="seed 20000 is outside the graph"):
        list(sample_groups(graph, seeds, DRAWING, threads=1, memory=SMALL))


def test_an_edge_from_nowhere_is_an_error_not_a_crash(tmp_path: Path) -> None:
    edges = topology_of(np.arange(20_000), np.arange(20_000), 20_000)
    broken = replace(edges, indices=np.full(20_000, 20_001, np.int32))
    with pytest.raises(CorruptError, match="an edge comes from node 20001, but there are 20000 nodes"):
        list(grouped(stored(tmp_path, broken), range(3)))


def test_edges_beyond_the_file_are_an_error_not_a_crash(tmp_path: Path) -> None:
    broken = replace(GRAPH, indices=GRAPH.indices[:1000])
    with pytest.raises(CorruptError, match=r"the in-edges of node \d+ lie outside its 1000 edges"):
        list(grouped(stored(tmp_path, broken), range(3)))


def test_a_truncated_file_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    topology = stored(tmp_path / "graph", GRAPH)
    os.truncate(topology.indices_array.path, 1 * MIB)
    (tmp_path / "out").mkdir()
    with pytest.raises(CorruptError, match=r"indices/c/0 is truncated: row \d+ ends at byte \d+"):
        write(tmp_path / "out" / "w.sample", topology, memory=SMALL)
    assert os.listdir(tmp_path / "out") == []


def test_leaving_early_stops_all_threads(graph: StoredTopology) -> None:
    before = set(threading.enumerate())
    batches = grouped(graph, range(20))
    assert same_batch(next(batches), alone(0))
    assert {thread.name.rsplit("_", 1)[0] for thread in set(threading.enumerate()) - before} == {
        "graphsys-sample", "graphsys-rows",
    }  # fmt: skip
    del batches
    assert not set(threading.enumerate()) - before


def test_the_more_memory_the_fewer_passes_over_the_edges(
    graph: StoredTopology, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, take = [0], DirectIds.take

    def counted(reader: DirectIds, place: NodeIds) -> Any:
        passes[-1] += 1
        return take(reader, place)

    monkeypatch.setattr(DirectIds, "take", counted)
    for memory in (150 * KIB, SMALL):
        assert len(list(grouped(graph, range(40), memory=memory))) == 40
        passes.append(0)
    one_by_one, shared, _ = passes
    assert shared == len(DRAWING.fanouts)
    assert one_by_one > 4 * shared
