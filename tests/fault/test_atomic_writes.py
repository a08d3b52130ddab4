"""Each disk call of an atomic write fails once; the old or the new artefact is there, never a half one."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from graphsys.core.errors import DiskError
from graphsys.storage import files
from graphsys.storage.files import SequentialWriter, atomic_file, atomic_folder, claimed_folder, remove_artefact

CALLS = ["fsync", "replace", "rename", "mkdir", "open"]


class FailingCall:
    """Lets ``os.<name>`` succeed ``after`` times, then fail with a full disk once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
        self.failed = False
        self._left = after
        self._real: Callable[..., Any] = getattr(os, name)
        monkeypatch.setattr(os, name, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._left == 0 and not self.failed:
            self.failed = True
            raise OSError(errno.ENOSPC, "No space left on device")
        self._left -= 1
        return self._real(*args, **kwargs)


class DyingCall:
    """Ends the process, as SIGKILL does, once ``call`` was done ``after`` times and once more."""

    def __init__(self, call: Callable[..., Any], after: int) -> None:
        self._call = call
        self._left = after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._call(*args, **kwargs)
        if self._left == 0:
            os._exit(0)
        self._left -= 1
        return result


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("after", range(6))
def test_a_failure_at_any_disk_call_leaves_the_old_or_the_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        failing = FailingCall(patch, name, after)
        message = "written"
        try:
            with atomic_file(path) as file:
                file.write(b"new")
        except DiskError as error:
            message = str(error)
    if message == "written":
        assert path.read_bytes() == b"new"
    else:
        assert failing.failed
        assert "the disk is full" in message
    assert path.read_bytes() in (b"old", b"new")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("after", range(8))
def test_a_failure_at_any_disk_call_leaves_no_half_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int
) -> None:
    path = tmp_path / "deep" / "artefact"
    with monkeypatch.context() as patch:
        failing = FailingCall(patch, name, after)
        try:
            with atomic_folder(path) as folder:
                (folder / "inner").mkdir()
                (folder / "inner" / "a").write_bytes(b"1")
                (folder / "b").write_bytes(b"2")
        except DiskError:
            assert failing.failed
    if path.exists():
        assert (path / "inner" / "a").read_bytes() == b"1"
        assert (path / "b").read_bytes() == b"2"
    else:
        assert list(tmp_path.rglob("*")) == []


def test_new_parent_folders_are_flushed_before_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    real = files.fsync_path

    def recorded(path: Path) -> None:
        flushed.append(str(path.relative_to(tmp_path)))
        real(path)

    monkeypatch.setattr(files, "fsync_path", recorded)
    with atomic_file(tmp_path / "runs" / "first" / "file") as file:
        file.write(b"1")
    assert flushed == [".", "runs", "runs/first"]
    flushed.clear()
    with atomic_folder(tmp_path / "stores" / "a") as folder:
        (folder / "x").write_bytes(b"1")
    assert flushed[:2] == [".", "stores"]


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    def stopped_folder() -> None:
        with atomic_folder(tmp_path / "a") as folder:
            (folder / "x").write_bytes(b"1")
            raise KeyError("stop")

    def stopped_file() -> None:
        with atomic_file(tmp_path / "f") as file:
            file.write(b"1")
            raise KeyError("stop")

    for stopped in (stopped_folder, stopped_file):
        with pytest.raises(KeyError):
            stopped()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_replaced_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"1", b"2"):
        with atomic_folder(path, overwrite=True) as folder:
            (folder / "x").write_bytes(content)
    with pytest.raises(DiskError, match="--overwrite"), atomic_folder(path):
        pass
    assert (path / "x").read_bytes() == b"2"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["rename", "unlink", "rmdir", "fsync"])
@pytest.mark.parametrize("after", range(4))
def test_a_replacement_killed_after_any_disk_call_leaves_the_old_or_the_new_folder(
    tmp_path: Path, name: str, after: int
) -> None:
    path = tmp_path / "a"
    for content in (b"1", b"2"):
        with atomic_folder(path, overwrite=True) as folder:
            (folder / "x").write_bytes(content)
    child = os.fork()
    if child == 0:
        try:
            setattr(os, name, DyingCall(getattr(os, name), after))
            with atomic_folder(path, overwrite=True) as folder:
                (folder / "x").write_bytes(b"3")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert (path / "x").read_bytes() in (b"2", b"3")
    with atomic_folder(path, overwrite=True) as folder:
        (folder / "x").write_bytes(b"4")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_also_where_the_system_cannot_exchange_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda _a, _b: False)
    for content in (b"1", b"2", b"3"):
        with atomic_folder(tmp_path / "a", overwrite=True) as folder:
            (folder / "x").write_bytes(content)
    assert (tmp_path / "a" / "x").read_bytes() == b"3"
    assert os.listdir(tmp_path) == ["a"]


def test_a_removal_that_breaks_off_leaves_no_half_artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"1")
    with monkeypatch.context() as patch:
        FailingCall(patch, "rmdir", 0)
        with pytest.raises(DiskError):
            remove_artefact(tmp_path / "a")
    assert os.listdir(tmp_path) == [".a.partial"]
    (tmp_path / "a").mkdir()
    remove_artefact(tmp_path / "a")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_write_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    left = tmp_path / ".a.partial"
    left.mkdir()
    (left / "junk").write_bytes(b"junk")
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_bytes(b"1")
    assert sorted(os.listdir(tmp_path)) == ["a"]
    assert os.listdir(tmp_path / "a") == ["x"]


def test_a_second_writer_of_a_folder_is_refused_and_the_first_is_undisturbed(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_folder(path) as folder:
        (folder / "x").write_bytes(b"1")
        with pytest.raises(DiskError, match=f"another process is writing {path}"), atomic_folder(path):
            pass
        assert (folder / "x").read_bytes() == b"1"
    assert (path / "x").read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["a"]


def test_a_second_writer_of_a_file_is_refused_and_the_first_is_undisturbed(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with atomic_file(path) as file:
        file.write(b"1")
        with pytest.raises(DiskError, match=f"another process is writing {path}"), atomic_file(path):
            pass
    assert path.read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["f"]


def test_a_claim_creates_the_folder_and_takes_it_away_when_nothing_was_written(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first"
    with claimed_folder(path), pytest.raises(DiskError, match="another process is writing"), claimed_folder(path):
        pass
    assert list(tmp_path.iterdir()) == []
    with claimed_folder(path):
        (path / "x").write_bytes(b"1")
    with claimed_folder(path):
        assert os.listdir(path) == ["x"]


def test_a_sequential_writer_keeps_what_it_was_given(tmp_path: Path) -> None:
    writer = SequentialWriter(tmp_path / "file", flush_bytes=1000)
    for value in range(50):
        writer.write(bytes([value]) * 333)
    writer.close()
    assert (tmp_path / "file").read_bytes() == b"".join(bytes([value]) * 333 for value in range(50))
    assert writer.nbytes == 50 * 333
