from pathlib import Path

import pytest

from graphsys.core.errors import DiskError
from graphsys.storage import disk_speed as module
from graphsys.storage.disk_speed import DiskSpeed, disk_speed, measure_disk
from graphsys.storage.manifest import sealed_json

OLD = DiskSpeed(read_bytes_s=1.0, write_bytes_s=2.0, random_reads_s=3.0, measured="2001-01-31")


@pytest.fixture(autouse=True)
def small_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Keep the file small and the cache of our own; return the cache folder."""
    monkeypatch.setattr(module, "FILE_BYTES", 8 << 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphsys"


def test_speeds_are_positive_and_the_file_is_gone(tmp_path: Path) -> None:
    speed = measure_disk(tmp_path)
    assert min(speed.read_bytes_s, speed.write_bytes_s, speed.random_reads_s) > 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_yet_is_measured_at_its_nearest_parent(tmp_path: Path) -> None:
    disk_speed(tmp_path / "runs" / "new")
    assert not (tmp_path / "runs").exists()


def test_a_measurement_is_remembered_per_device(tmp_path: Path, small_file: Path) -> None:
    first = disk_speed(tmp_path)
    assert disk_speed(tmp_path) == first
    assert len(list(small_file.iterdir())) == 1


@pytest.mark.parametrize("content", [b"", b"{}", sealed_json({"other": 1}), sealed_json(OLD.as_dict())])
def test_an_old_or_broken_memory_is_measured_again(tmp_path: Path, small_file: Path, content: bytes) -> None:
    disk_speed(tmp_path)
    (remembered,) = small_file.iterdir()
    remembered.write_bytes(content)
    assert disk_speed(tmp_path).measured > OLD.measured


def test_a_cache_folder_that_cannot_be_written_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert disk_speed(tmp_path).read_bytes_s > 0


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"cannot write .*graphsys-disk-speed"):
        measure_disk(tmp_path / "gone")


def test_a_measurement_that_is_killed_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    seen: list[list[Path]] = []
    monkeypatch.setattr(module, "drop_cache", lambda _fd: seen.append(list((tmp_path / "runs").iterdir())))
    measure_disk(tmp_path / "runs")
    assert seen
    assert not any(seen)
