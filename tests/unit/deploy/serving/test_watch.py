"""Tables that appear in a watched folder."""

import errno
import shutil
from pathlib import Path

import pytest
from helpers.serving import constant_table
from helpers.tables import make_table

from graphsys.deploy.serving.map_folder import save_projection
from graphsys.deploy.serving.projection import MapSettings, compute_projection
from graphsys.deploy.serving.registry import TableRegistry
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.deploy.serving.watch import FolderWatch


@pytest.fixture
def registry() -> TableRegistry:
    return TableRegistry(ServeSettings())


def watch(registry: TableRegistry, folder: Path, *, activate: bool = True) -> FolderWatch:
    folder.mkdir(exist_ok=True)
    return FolderWatch(registry, folder, every_s=0.02, activate=activate)


def test_the_newest_table_becomes_active_once_it_is_there(tmp_path: Path, registry: TableRegistry) -> None:
    inbox = watch(registry, tmp_path / "in")
    inbox.look()
    assert not registry.active
    first, second = constant_table(tmp_path / "a", 1.0), constant_table(tmp_path / "b", 2.0)
    first.path.rename(tmp_path / "in" / "first.gs")
    inbox.look()
    assert registry.active == first.version
    second.path.rename(tmp_path / "in" / "second.gs")
    inbox.look()
    assert registry.active == second.version
    inbox.look()
    assert [listing.state for listing in registry.listing()] == ["known", "active"]
    registry.close()


def test_without_activation_on_arrival_a_table_is_only_known(tmp_path: Path, registry: TableRegistry) -> None:
    inbox = watch(registry, tmp_path / "in", activate=False)
    version = constant_table(tmp_path / "in", 1.0).version
    inbox.look()
    assert not registry.active
    assert [listing.version for listing in registry.listing()] == [version]


def test_a_table_that_is_copied_in_piece_by_piece_is_taken_once_it_is_whole(
    tmp_path: Path, registry: TableRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = watch(registry, tmp_path / "in")
    table = constant_table(tmp_path / "a", 1.0)
    target = tmp_path / "in" / "copy.gs"
    target.mkdir()
    shutil.copy(table.path / "manifest.json", target)
    inbox.look()
    assert not registry.active
    shutil.copytree(table.path, target, dirs_exist_ok=True)
    vectors = target / table.vectors.path.relative_to(table.path)
    whole = vectors.read_bytes()
    vectors.write_bytes(bytes(len(whole)))  # its length is there already, its content is not
    inbox.look()
    assert not registry.active
    assert "chunk 0 is corrupt" in caplog.text
    vectors.write_bytes(whole)
    inbox.look()
    assert registry.active == table.version
    registry.close()


def test_what_is_still_being_written_is_not_looked_at(tmp_path: Path, registry: TableRegistry) -> None:
    inbox = watch(registry, tmp_path / "in")
    table = constant_table(tmp_path / "a", 1.0)
    table.path.rename(tmp_path / "in" / ".emb.gs.partial")
    inbox.look()
    assert registry.listing() == []


def test_a_table_that_is_replaced_in_place_becomes_active(tmp_path: Path, registry: TableRegistry) -> None:
    inbox = watch(registry, tmp_path / "in")
    old = constant_table(tmp_path / "in", 1.0)
    inbox.look()
    new = make_table(tmp_path / "in", old.vectors.read() + 1, overwrite=True)
    inbox.look()
    assert registry.active == new.version != old.version
    registry.close()


def test_looking_goes_on_by_itself_until_it_is_stopped(tmp_path: Path, registry: TableRegistry) -> None:
    import time

    inbox = watch(registry, tmp_path / "in")
    inbox.start()
    version = constant_table(tmp_path / "in", 1.0).version
    deadline = time.monotonic() + 20
    while registry.active != version and time.monotonic() < deadline:
        time.sleep(0.01)
    inbox.stop()
    assert registry.active == version
    registry.close()


def test_the_map_beside_a_table_is_passed_over(
    tmp_path: Path, registry: TableRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    inbox = watch(registry, tmp_path / "in", activate=False)
    table = constant_table(tmp_path / "in", 1.0)
    save_projection(table, compute_projection(table, MapSettings()))
    inbox.look()
    assert [listing.version for listing in registry.listing()] == [table.version]
    assert "emb.gs.map" not in caplog.text


def test_a_folder_that_cannot_be_read_keeps_no_other_table_away(
    tmp_path: Path, registry: TableRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = tmp_path / "in" / "locked"
    locked.mkdir(parents=True)
    table = constant_table(tmp_path / "in", 1.0)
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.parent == locked:
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)  # root may read everything
    inbox = watch(registry, tmp_path / "in")
    inbox.look()
    inbox.look()
    assert registry.active == table.version
