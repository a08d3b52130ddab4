from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.loading import MEMORY, Scene, random_trace, scene, star

from graphsys.core.types import NodeIds
from graphsys.core.units import MIB
from graphsys.storage.residency import plan_residency
from graphsys.storage.window import WindowBatch
from graphsys.trainers.loader import Loader
from graphsys.trainers.plan import PackPlan
from graphsys.trainers.rows import open_reader
from graphsys.trainers.rows_bound import RowsBound

NODES = 20_000


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> PackPlan:
    chosen: Scene = scene(tiny_store(tmp_path_factory.mktemp("store")), tmp_path_factory.mktemp("run"))
    return replace(chosen.plan, num_slots=NODES // 10, max_nodes=2000, bound_bytes=8 * MIB)


def epoch(seed: int = 0, num_batches: int = 40) -> list[NodeIds]:
    return random_trace(num_batches, NODES, 2000, seed)


def windows(trace: list[NodeIds], num_slots: int, window: int) -> tuple[list[WindowBatch], list[NodeIds]]:
    """Plan ``trace`` window by window; return its batches, and the cache before each."""
    held, batches, caches = np.full(num_slots, -1, np.int64), [], []
    for start in range(0, len(trace), window):
        part = plan_residency(trace[start : start + window], num_slots, held)
        held = held.copy()
        for index, residency in enumerate(part.batches):
            batches.append(
                WindowBatch(sampled=star(start + index, trace[start + index]), y=None, residency=residency, rows=None)
            )
            caches.append(held.copy())
            held[residency.insert_slot] = residency.fetch_node[residency.insert_row]
    return batches, caches


def follow(bound: RowsBound, batches: list[WindowBatch], caches: list[NodeIds]) -> tuple[int, int]:
    found = [bound.see(batch, held) for batch, held in zip(batches, caches, strict=True)]
    assert found[:-1] == [(0, 0)] * (len(found) - 1)
    return found[-1]


def test_followed_whole_the_bound_is_the_optimal_plan_of_the_epoch(plan: PackPlan) -> None:
    trace = epoch()
    batches, caches = windows(trace, plan.num_slots, window=5)
    bound = RowsBound(plan, len(trace))
    assert bound.shift == 0
    read, fewest = follow(bound, batches, caches)
    optimal = plan_residency(trace, plan.num_slots, np.full(plan.num_slots, -1, np.int64))
    assert read == sum(batch.residency.fetch_node.shape[0] for batch in batches if batch.residency)
    assert fewest == sum(batch.fetch_node.shape[0] for batch in optimal.batches)
    assert read > fewest


def test_one_window_for_the_whole_epoch_reaches_the_bound(plan: PackPlan) -> None:
    trace = epoch()
    read, fewest = follow(RowsBound(plan, len(trace)), *windows(trace, plan.num_slots, window=len(trace)))
    assert read == fewest


def test_a_sample_of_the_nodes_gives_nearly_the_same_ratio(plan: PackPlan) -> None:
    trace = epoch()
    batches, caches = windows(trace, plan.num_slots, window=5)
    read, fewest = follow(RowsBound(plan, len(trace)), batches, caches)
    sampled = RowsBound(replace(plan, bound_bytes=MIB), len(trace))
    assert 0 < sampled.shift < 4
    part_read, part_fewest = follow(sampled, batches, caches)
    assert part_read < read
    assert part_read / part_fewest == pytest.approx(read / fewest, rel=0.02)


def test_in_an_epoch_of_many_batches_some_are_taken_for_one_and_the_bound_holds(plan: PackPlan) -> None:
    trace, plan = random_trace(600, NODES, 200), replace(plan, max_nodes=200)
    batches, caches = windows(trace, plan.num_slots, window=600)
    whole = RowsBound(plan, len(trace))
    merging = RowsBound(replace(plan, bound_bytes=5 * MIB), len(trace))
    assert (whole.together, whole.shift) == (1, 0)
    assert (merging.together, merging.shift) == (2, 0)
    (_, fewest), (_, merged) = follow(whole, batches, caches), follow(merging, batches, caches)
    assert 0.95 * fewest < merged <= fewest


def test_the_next_epoch_starts_from_the_cache_that_the_last_one_left(plan: PackPlan) -> None:
    first, second = epoch(0), epoch(1)
    batches, caches = windows([*first, *second], plan.num_slots, window=10)
    renamed = [
        replace(batch, sampled=star(index % len(first), batch.sampled.node)) for index, batch in enumerate(batches)
    ]
    bound = RowsBound(plan, len(first))
    follow(bound, renamed[: len(first)], caches[: len(first)])
    _, fewest = follow(bound, renamed[len(first) :], caches[len(first) :])
    warm = plan_residency(second, plan.num_slots, caches[len(first)])
    assert fewest == sum(batch.fetch_node.shape[0] for batch in warm.batches)


@pytest.mark.parametrize("changes", [{"num_slots": 0}, {"bound_bytes": 0}, {"bound_bytes": 4096}])
def test_nothing_is_followed_without_a_cache_or_room(plan: PackPlan, changes: dict[str, Any]) -> None:
    trace = epoch(num_batches=3)
    batches, caches = windows(trace, plan.num_slots, window=3)
    bound = RowsBound(replace(plan, **changes), len(trace))
    assert [bound.see(batch, held) for batch, held in zip(batches, caches, strict=True)] == [(0, 0)] * 3


def test_a_loader_counts_the_bound_of_every_epoch(tmp_path: Path) -> None:
    chosen = scene(tiny_store(tmp_path), tmp_path / "run", window_batches=2)
    chosen = replace(chosen, plan=replace(chosen.plan, bound_bytes=MIB))
    with (
        chosen.windows() as opened,
        closing(open_reader(chosen.features, chosen.plan, memory=MEMORY)) as reader,
        Loader(opened, chosen.features, reader) as loader,
    ):
        list(loader)
        stats = loader.stats
    assert stats.rows_traced == stats.rows_fetched
    assert 0 < stats.rows_bound <= stats.rows_traced
