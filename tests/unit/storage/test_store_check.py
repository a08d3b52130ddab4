import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers.artefacts import flip
from helpers.graphs import tiny_store
from helpers.mounts import mounted_tmpfs

from graphsys.core.errors import ArtefactError, CorruptError
from graphsys.storage.store import Store
from graphsys.storage.store_check import StoreCheck, check_store

X, Y, INDPTR = "nodes/node/x", "nodes/node/y", "topology/node__to__node/indptr"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    # Features of several chunks, so that one in the middle can be damaged.
    return tiny_store(tmp_path, num_nodes=3000, num_features=300)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "run" / "store-checked.json"


def check(store: Path, record: Path, names: Sequence[str] = (X, INDPTR)) -> StoreCheck:
    done = check_store(Store.open(store), names, record=record)
    record.parent.mkdir(exist_ok=True)
    done.remember(record)
    return done


def read_arrays(done: StoreCheck) -> list[str]:
    return [] if done.report.skipped else list(done.report.details["arrays"])


def test_an_unchanged_store_is_read_once(store: Path, record: Path) -> None:
    first, second = check(store, record), check(store, record)
    nbytes = 3000 * 300 * 4 + 3001 * 8
    assert first.report.useful_bytes == nbytes
    assert first.report.device_bytes_read <= nbytes + (4 << 20)  # once: the padded chunks, an index and pages
    assert second.report.skipped
    assert second.report.device_bytes_read == 0


def test_only_arrays_that_are_not_remembered_are_read(store: Path, record: Path) -> None:
    check(store, record, [INDPTR])
    assert read_arrays(check(store, record, [INDPTR, Y])) == [Y]
    assert read_arrays(check(store, record, [Y, INDPTR, X])) == [X]
    assert read_arrays(check(store, record, [X, Y, INDPTR])) == []


def test_a_check_that_is_not_remembered_leaves_no_file(store: Path, record: Path) -> None:
    check_store(Store.open(store), [X], record=record)
    assert not record.parent.exists()


def test_a_touched_file_is_read_again(store: Path, record: Path) -> None:
    check(store, record)
    (store / X / "c/0/0").touch()
    assert read_arrays(check(store, record)) == [X]


def test_a_file_changed_under_its_old_time_is_read_again(store: Path, record: Path) -> None:
    check(store, record)
    path = store / INDPTR / "c/0"
    before = path.stat()
    flip(path, 12)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(CorruptError, match=r"indptr/c/0: chunk 0 is corrupt"):
        check(store, record)


def test_a_store_put_in_the_place_of_another_is_read_whole(store: Path, record: Path, tmp_path: Path) -> None:
    check(store, record)
    shutil.copytree(store, tmp_path / "copy.gs")
    shutil.rmtree(store)
    (tmp_path / "copy.gs").rename(store)
    assert read_arrays(check(store, record)) == [X, INDPTR]


def test_another_store_is_not_taken_for_the_one_remembered(store: Path, record: Path, tmp_path: Path) -> None:
    check(store, record)
    other = tiny_store(tmp_path, seed=1, name="other.gs")
    assert read_arrays(check(other, record)) == [X, INDPTR]


def test_a_folder_that_takes_no_writes_is_left_without_a_record(store: Path, tmp_path: Path) -> None:
    with mounted_tmpfs(tmp_path / "locked", "ro") as disk:
        assert read_arrays(check(store, disk / "store-checked.json")) == [X, INDPTR]
        assert read_arrays(check(store, disk / "store-checked.json")) == [X, INDPTR]


def test_a_damaged_record_counts_as_none(store: Path, record: Path) -> None:
    check(store, record)
    flip(record, 20)
    assert read_arrays(check(store, record)) == [X, INDPTR]
    assert read_arrays(check(store, record)) == []


def test_the_message_names_file_chunk_and_offset(store: Path, record: Path) -> None:
    chunk_rows = Store.open(store).array(X).spec.chunk_rows
    offset = 2 * chunk_rows * 300 * 4
    flip(store / X / "c/0/0", offset + 5)
    with pytest.raises(CorruptError, match=rf"x/c/0/0: chunk 2 is corrupt.* at offset {offset}\)"):
        check(store, record)
    assert not record.exists()


def test_a_small_budget_gives_the_same_answer(store: Path, record: Path) -> None:
    check_store(Store.open(store), [X], record=record, memory=0)
    flip(store / X / "c/0/0", 3 << 20)
    with pytest.raises(CorruptError, match="chunk 3"):
        check_store(Store.open(store), [X], record=record, memory=0)


def test_an_array_that_the_store_lacks_is_named(store: Path, record: Path) -> None:
    with pytest.raises(ArtefactError, match="has no array 'nodes/node/z'"):
        check(store, record, ["nodes/node/z"])
