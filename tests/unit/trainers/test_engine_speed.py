from pathlib import Path

import numpy as np
import pytest

from graphsys.storage.flat import FlatArray, write_array
from graphsys.storage.manifest import sealed_json
from graphsys.trainers import drawn_packing
from graphsys.trainers.engine_speed import ASSUMED, EngineSpeed, engine_speed, measure_engine

OLD = EngineSpeed(plan_access_s=1.0, pack_bytes_s=2.0, byte_s=1.0, version="0.0.1", measured="2001-01-31")


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the window small and the cache of our own; return the cache folder."""
    monkeypatch.setattr(drawn_packing, "MOST_BYTES", 1_000_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphsys"


def test_speeds_are_positive_and_the_files_are_gone(tmp_path: Path) -> None:
    found = engine_speed(tmp_path / "run")
    assert found.plan_access_s > 0
    assert found.pack_bytes_s > 0
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize(
    ("dim", "codec", "with_rows"),
    [(1, "int8", True), (33, "bfloat16", True), (5000, "float32", True), (33, "int8", False)],
)
def test_rows_of_any_shape_are_packed_within_a_small_budget(
    tmp_path: Path, dim: int, codec: str, with_rows: bool
) -> None:
    rows = np.random.default_rng(0).random((3000, dim), np.float32)
    features = FlatArray(tmp_path / "x", write_array(tmp_path / "x", rows))
    speed = measure_engine(tmp_path, features, codec=codec, with_rows=with_rows, memory=5 << 20)
    assert speed.pack_bytes_s > 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("num_nodes", [1, 3, 9])
def test_a_store_of_few_nodes_is_packed_too(tmp_path: Path, num_nodes: int) -> None:
    features = FlatArray(tmp_path / "x", write_array(tmp_path / "x", np.ones((num_nodes, 4), np.float32)))
    assert measure_engine(tmp_path, features, codec="float32", with_rows=True, memory=5 << 20).byte_s > 0


def test_a_measurement_is_remembered_per_device(tmp_path: Path, small_window: Path) -> None:
    assert engine_speed(tmp_path / "run") == engine_speed(tmp_path)
    assert len(list(small_window.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"{}", sealed_json({"other": 1}), sealed_json(OLD.as_dict())])
def test_an_old_or_broken_memory_is_measured_again(tmp_path: Path, small_window: Path, content: bytes) -> None:
    engine_speed(tmp_path)
    (remembered,) = small_window.iterdir()
    remembered.write_bytes(content)
    assert engine_speed(tmp_path).measured > OLD.measured


def test_a_disk_that_is_nearly_full_is_left_alone(
    tmp_path: Path, small_window: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn_packing, "LEAST_FREE", 1 << 62)
    assert engine_speed(tmp_path) == ASSUMED
    assert not small_window.exists()
