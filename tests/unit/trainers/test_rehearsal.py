from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.graphs import tiny_store
from helpers.producers import producers
from helpers.trained import make_run

from graphsys.core.config import RunConfig
from graphsys.storage.store import Store
from graphsys.trainers.budget import plan_run, train_schedule
from graphsys.trainers.drawn_windows import DrawnBatch, draw_window, sample_some
from graphsys.trainers.model_factory import build_model
from graphsys.trainers.objective import resolve_objective, training_nodes
from graphsys.trainers.plan import PackPlan
from graphsys.trainers.rehearsal import Rehearsal, open_rehearsal

MODES = ("memory", "packed", "cached", "direct")


class Scene:
    """A store, a run and batches to draw windows of."""

    def __init__(self, run: RunConfig) -> None:
        self.run = run
        self.store = Store.open(run.store)
        self.info = self.store.node_type(None)
        self.topology = self.store.topology(self.store.edge_type_within(self.info.name))
        self.schedule = train_schedule(run, training_nodes(self.store, self.info.name))
        self.batches = sample_some(run, self.store, self.topology, self.schedule, with_degree=False)

    def plan(self, mode: str) -> PackPlan:
        run = self.run.model_copy(update={"pack": self.run.pack.model_copy(update={"mode": mode})})
        return plan_run(run, self.store, self.topology, self.schedule, None).train

    def draw(self, path: Path, plan: PackPlan, fetched: float, *, initial_rows: int = 0) -> list[int]:
        window = draw_window(
            path, self.batches, plan, fetched=fetched, num_nodes=self.info.num_nodes, dim=self.info.num_features,
            initial_rows=initial_rows,
        )  # fmt: skip
        window.verify()
        return [entry.num_rows for entry in window.entries]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("rehearsal")
    store = tiny_store(folder, num_nodes=2000, num_edges=16_000, num_features=32)
    run = make_run(
        store, folder / "run", memory="64MiB",
        sampler={"fanouts": [4, 4], "batch_size": 16}, trainer={"epochs": 1, "threads": 1, "device": "cpu"},
    )  # fmt: skip
    return Scene(run)


@pytest.mark.parametrize("mode", ["packed", "cached"])
def test_a_drawn_window_holds_as_many_rows_as_were_foretold(scene: Scene, tmp_path: Path, mode: str) -> None:
    fetched = 0.25 * sum(batch.sampled.num_nodes for batch in scene.batches) / len(scene.batches)
    rows = scene.draw(tmp_path / "drawn.pack", scene.plan(mode), fetched)
    assert sum(rows) == pytest.approx(fetched * len(rows), abs=len(rows))


def test_without_a_cache_every_row_of_a_drawn_batch_is_fetched(scene: Scene, tmp_path: Path) -> None:
    rows = scene.draw(tmp_path / "drawn.pack", replace(scene.plan("packed"), num_slots=0), 10.0)
    assert rows == [batch.sampled.num_nodes for batch in scene.batches]


def test_a_drawn_window_may_hold_rows_for_the_cache_to_start_with(scene: Scene, tmp_path: Path) -> None:
    plan = scene.plan("packed")
    rows = scene.draw(tmp_path / "drawn.pack", plan, 10.0, initial_rows=plan.num_slots)
    assert sum(rows) > 0


def test_batches_of_fewer_nodes_name_none_beyond_them(scene: Scene) -> None:
    sampled = DrawnBatch(sampled=scene.batches[0].sampled, y=np.zeros(0)).within(7).sampled
    assert sampled.node.max() < 7
    assert sampled.num_edges == scene.batches[0].sampled.num_edges


@pytest.mark.parametrize("mode", MODES)
def test_a_rehearsal_times_every_mode_and_leaves_nothing(scene: Scene, mode: str) -> None:
    plan = scene.plan(mode)
    with _open(scene) as rehearsal, rehearsal.pace(plan, fetched=20.0, loaded=0.0, trains=True) as train:
        with rehearsal.pace(plan, fetched=20.0, loaded=50.0, trains=False) as val:
            assert val.batch_s > 0
            assert (val.fill_s > 0) == (mode == "packed")
        assert train.batch_s > 0
        assert train.cpu_s > 0
        assert (train.load_bytes_s < float("inf")) == (mode == "memory")
    assert not list(scene.run.out.parent.glob(".graphsys-scratch-*"))
    assert not scene.run.out.exists()


@pytest.mark.parametrize("mode", MODES)
def test_a_training_is_rehearsed_beside_a_producer_that_is_gone_afterwards(scene: Scene, mode: str) -> None:
    plan = scene.plan(mode)
    with (
        _open(scene) as rehearsal,
        rehearsal.pace(plan, fetched=20.0, loaded=0.0, trains=True, beside=scene.schedule) as pace,
    ):
        assert producers() == []
    assert pace.company is not None
    assert set(pace.company.slowdowns) == ({"sample", "pack"} if mode in ("packed", "cached") else {"sample"})
    for slower in pace.company.slowdowns.values():
        assert slower.training >= 1
        assert slower.making >= 1
    assert pace.company.spawn_s > 0
    assert all(seconds >= 0 for seconds in pace.company.first_s.values())
    assert not list(scene.run.out.parent.glob(".graphsys-scratch-*"))


def test_sampling_is_timed_on_windows_that_are_gone_afterwards(scene: Scene) -> None:
    with _open(scene) as rehearsal:
        sampling = rehearsal.sampling(scene.schedule, scene.plan("packed"))
    assert sampling.batch_s > 0
    assert 0 < sampling.window_batches <= scene.plan("packed").window_batches
    assert not list(scene.run.out.parent.glob(".graphsys-scratch-*"))


def test_edges_that_do_not_fit_are_read_by_groups_and_their_bytes_counted(scene: Scene, tmp_path: Path) -> None:
    store = tiny_store(tmp_path, num_nodes=2000, num_edges=400_000, num_features=4)
    large = Scene(scene.run.model_copy(update={"store": store, "out": tmp_path / "run"}))
    plan = replace(large.plan("packed"), producer_bytes=1400 << 10, window_batches=8)
    with _open(large) as rehearsal:
        by_groups = rehearsal.sampling(large.schedule, plan)
        mapped = rehearsal.sampling(large.schedule, replace(plan, producer_bytes=64 << 20))
    assert mapped.read_bytes is None
    assert by_groups.read_bytes is not None
    assert 0 < by_groups.read_bytes < large.topology.indices.nbytes * len(scene.run.sampler.fanouts)


def _open(scene: Scene) -> AbstractContextManager[Rehearsal]:
    objective = resolve_objective(scene.run.task, scene.info)
    model = build_model(scene.run, scene.info.num_features, objective.num_outputs)
    return open_rehearsal(scene.run, scene.store, scene.topology, model, objective, scene.batches)
