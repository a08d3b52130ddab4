from pathlib import Path

import pytest

from graphsys.storage.manifest import sealed_json
from graphsys.trainers import engine_speed as module
from graphsys.trainers.engine_speed import EngineSpeed, PackShape, engine_speed, measure_engine

OLD = EngineSpeed(plan_access_s=1.0, pack_bytes_s=2.0, version="0.0.1", measured="2001-01-31")


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the window small and the cache of our own; return the cache folder."""
    monkeypatch.setattr(module, "ROWS_NBYTES", 1_000_000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphsys"


def test_speeds_are_positive_and_the_files_are_gone(tmp_path: Path) -> None:
    found = measure_engine(tmp_path)
    assert found.plan_access_s > 0
    assert found.pack_bytes_s > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("dim", "codec", "with_rows"),
    [(1, "int8", True), (33, "bfloat16", True), (5000, "float32", True), (33, "int8", False)],
)
def test_rows_of_any_shape_are_packed_within_a_small_budget(
    tmp_path: Path, dim: int, codec: str, with_rows: bool
) -> None:
    shape = PackShape(num_nodes=3000, dim=dim, codec=codec, with_rows=with_rows)
    assert measure_engine(tmp_path, shape, memory=5 << 20).pack_bytes_s > 0


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
    monkeypatch.setattr(module, "_LEAST_FREE", 1 << 62)
    assert engine_speed(tmp_path) == module.ASSUMED
    assert not small_window.exists()
