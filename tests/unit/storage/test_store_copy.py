import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.artefacts import flip
from helpers.graphs import tiny_store

from graphsys.core.errors import ArtefactError, CorruptError, DiskError
from graphsys.core.progress import SilentProgress, Task
from graphsys.storage.store import Store
from graphsys.storage.store_copy import local_copy
from graphsys.storage.verify import verify


class Told(SilentProgress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.messages: list[str] = []

    def start(self, title: str, total: float | None, unit: str) -> Task:
        self.titles.append(title)
        return super().start(title, total, unit)

    def message(self, text: str) -> None:
        self.messages.append(text)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tiny_store(tmp_path)


def copy(store: Path, cache: Path, told: Told | None = None) -> Path:
    return local_copy(store, cache, limit_s=5.0, progress=told or Told())


def features_file(store: Path) -> Path:
    return Store.open(store).array("nodes/node/x").path


def test_of_many_that_ask_at_once_one_copies_and_all_read_the_same(store: Path, tmp_path: Path) -> None:
    tellers = [Told() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda told: copy(store, tmp_path / "cache", told), tellers))
    assert len(set(places)) == 1
    assert sum(len(told.titles) for told in tellers) == 1
    assert Store.open(places[0]).fingerprint == Store.open(store).fingerprint
    assert verify(places[0]).nbytes == verify(store).nbytes


def test_a_copy_serves_the_next_call(store: Path, tmp_path: Path) -> None:
    place, told = copy(store, tmp_path / "cache"), Told()
    assert copy(store, tmp_path / "cache", told) == place
    assert not told.titles
    assert not [path for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".") and path != place]


def test_a_damaged_copy_is_made_again_and_said_to_be(store: Path, tmp_path: Path) -> None:
    place, told = copy(store, tmp_path / "cache"), Told()
    flip(features_file(place), 17)
    assert copy(store, tmp_path / "cache", told) == place
    assert "copying" in told.messages[0]
    assert len(told.titles) == 1
    verify(place)


def test_a_damaged_store_is_refused_and_leaves_no_copy(store: Path, tmp_path: Path) -> None:
    flip(features_file(store), 17)
    with pytest.raises(CorruptError, match=r"run `graphsys verify .*tiny.gs`"):
        copy(store, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.gs"))


def test_a_path_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError):
        copy(tmp_path, tmp_path / "cache")


def test_a_wait_for_another_process_has_a_limit(store: Path, tmp_path: Path) -> None:
    place = copy(store, tmp_path / "cache")
    with (place.parent / f".{place.stem}.lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DiskError, match=r"raise cluster.timeout, or leave cluster.store_cache out"):
            local_copy(store, place.parent, limit_s=0.2)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(DiskError):
        copy(store, tmp_path / "cache")
