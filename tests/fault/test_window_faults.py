"""Windows on failing disks and windows that are not what was written."""

import errno
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.mounts import mounted_tmpfs
from helpers.windows import FINAL_SLOTS, FINGERPRINT, INITIAL_SLOTS, header, packed_batches, write_packed

from graphsys.core.errors import ArtefactError, CorruptError, DiskError, FormatVersionError
from graphsys.storage.direct import PAGE
from graphsys.storage.window import Window, WindowBatch, WindowWriter
from graphsys.storage.window_layout import HEADER, checksum

CALLS = ["open", "mkdir", "posix_fallocate", "pwrite", "fdatasync", "fsync", "replace"]


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


def check(path: Path) -> None:
    """Do what ``graphsys verify`` does."""
    Window.open(path, None).verify()


def reseal(raw: bytes, **changes: int) -> bytes:
    """Return a window's bytes with header fields changed and the header's checksum made right again."""
    record = np.frombuffer(raw[:PAGE], HEADER).copy()
    for name, value in changes.items():
        record[name] = value
    record["checksum"] = checksum(record.tobytes()[:-8])
    return record.tobytes() + raw[PAGE:]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("after", range(0, 14, 2))
@pytest.mark.parametrize("old", [b"", b"old"])
def test_a_failure_at_any_disk_call_leaves_the_old_or_the_new_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, after: int, old: bytes
) -> None:
    path = tmp_path / "w.pack"
    if old:
        path.write_bytes(old)
    with monkeypatch.context() as patch:
        failing = FailingCall(patch, name, after)
        message = "written"
        try:
            write_packed(path)
        except DiskError as error:
            message = str(error)
    assert failing.failed or message == "written"
    assert message == "written" or "the disk is full" in message
    if message == "written" or (path.exists() and path.read_bytes() != old):
        check(path)
    assert os.listdir(tmp_path) == ([path.name] if path.exists() else [])
    assert path.exists() or not old


def begin_all(path: Path, num_batches: int) -> None:
    """Begin all batches of a window and write no rows."""
    with WindowWriter(path, header=header(num_batches)) as writer:
        for batch in packed_batches(num_batches):
            writer.begin(batch.sampled, y=batch.y, residency=batch.residency)


def test_a_full_disk_is_met_when_a_batch_begins_and_leaves_nothing(tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "small", "size=256k") as folder:
        with pytest.raises(DiskError, match=r"cannot write .*w\.pack: the disk is full"):
            begin_all(folder / "w.pack", 6)
        assert os.listdir(folder) == []


def test_each_flipped_byte_is_found(tmp_path: Path) -> None:
    path, flipped = tmp_path / "w.pack", tmp_path / "flipped.pack"
    write_packed(path)
    raw = path.read_bytes()
    entry = Window.open(path, None).entries[0]
    chance = random.Random(0)
    places = [*range(256), *range(PAGE - 32, PAGE + 256), *chance.sample(range(len(raw)), 600), len(raw) - 1]
    places += range(entry.offset + entry.nbytes - 8, entry.offset + entry.nbytes + 8)
    missed = []
    for place in places:
        content = bytearray(raw)
        content[place] ^= 1 << chance.randrange(8)
        flipped.write_bytes(content)
        try:
            check(flipped)
        except ArtefactError:
            continue
        missed.append(place)
    assert missed == []


@pytest.mark.parametrize("nbytes", [1, 7, 8, 100, PAGE - 1, PAGE, PAGE + 1, 20_000, -1, -PAGE])
def test_a_truncated_window_is_refused(tmp_path: Path, nbytes: int) -> None:
    path = tmp_path / "w.pack"
    write_packed(path)
    path.write_bytes(path.read_bytes()[:nbytes])
    with pytest.raises(ArtefactError, match=r"truncated|is not a window"):
        Window.open(path, None)


def test_a_window_with_something_behind_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pack"
    write_packed(path)
    path.write_bytes(path.read_bytes() + bytes(PAGE))
    with pytest.raises(CorruptError, match="truncated or overwritten"):
        Window.open(path, None)


@pytest.mark.parametrize("content", [b"", b"GSPACK", b"not a window" * 1000, bytes(3 * PAGE)])
def test_a_file_of_another_kind_is_not_a_window(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pack"
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="is not a window"):
        Window.open(path, None)


def test_a_missing_window_is_a_disk_error(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="no such file"):
        Window.open(tmp_path / "w.pack", None)


def test_a_newer_version_is_refused_with_both_numbers(tmp_path: Path) -> None:
    path = tmp_path / "w.pack"
    write_packed(path)
    path.write_bytes(reseal(path.read_bytes(), version=4))
    with pytest.raises(FormatVersionError, match=r"has window format version 4; this program reads up to 3\. Upgrade"):
        Window.open(path, FINGERPRINT)


def test_a_version_before_the_first_release_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "w.pack"
    write_packed(path)
    path.write_bytes(reseal(path.read_bytes(), version=1))
    with pytest.raises(FormatVersionError, match=r"version 1, which no release wrote; .* Remove the file"):
        Window.open(path, FINGERPRINT)


@pytest.mark.parametrize("name", ["file_nbytes", "num_batches", "num_slots", "slots_offset", "index_offset"])
@pytest.mark.parametrize("value", [-PAGE, 0, 2, 1 << 20, 1 << 60])
def test_a_header_that_lies_under_a_right_checksum_is_refused(tmp_path: Path, name: str, value: int) -> None:
    path = tmp_path / "w.pack"
    write_packed(path)
    path.write_bytes(reseal(path.read_bytes(), **{name: value}))
    with pytest.raises(CorruptError):
        Window.open(path, None)


@pytest.mark.parametrize("num_hops", [0, 1, 5, 1 << 40])
def test_a_batch_with_another_number_of_hops_than_the_header_says_is_refused(tmp_path: Path, num_hops: int) -> None:
    path = tmp_path / "w.pack"
    write_packed(path)
    path.write_bytes(reseal(path.read_bytes(), num_hops=num_hops))
    with pytest.raises(CorruptError, match="batch 0 contradicts itself"):
        Window.open(path, None).read(0)


def broken_index(batch: WindowBatch, field: str, value: int) -> WindowBatch:
    """Return ``batch`` with the last entry of one index array replaced."""
    part = "sampled" if hasattr(batch.sampled, field) else "residency"
    array = getattr(getattr(batch, part), field).copy()
    array[-1] = value
    return replace(batch, **{part: replace(getattr(batch, part), **{field: array})})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("indices", 25 + 1),
        ("indices", -1),
        ("indptr", 3),
        ("source", 10_000),
        ("source", ~len(INITIAL_SLOTS)),
        ("insert_row", -1),
        ("insert_slot", len(INITIAL_SLOTS)),
    ],
)
def test_verify_finds_an_index_that_points_nowhere(tmp_path: Path, field: str, value: int) -> None:
    batch = broken_index(packed_batches(1)[0], field, value)
    with WindowWriter(tmp_path / "w.pack", header=header(1)) as writer:
        writer.add(batch.sampled, y=batch.y, residency=batch.residency, rows=batch.rows)
        writer.close(INITIAL_SLOTS, FINAL_SLOTS)
    with pytest.raises(CorruptError, match="batch 0 contradicts itself"):
        check(tmp_path / "w.pack")


def test_a_corrupt_batch_is_named_and_the_others_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "w.pack"
    write_packed(path)
    window = Window.open(path, None)
    raw = bytearray(path.read_bytes())
    raw[window.entries[1].offset + 300] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CorruptError, match=r"w\.pack: batch 1 is corrupt: xxh3 \w{16}, expected \w{16}"):
        window.read(1)
    with pytest.raises(CorruptError, match="the head of batch 1 is corrupt"):
        window.nodes(1)
    with pytest.raises(CorruptError, match="the head of batch 1 is corrupt"):
        window.residency(1)
    window.read(0)
    window.nodes(2)
