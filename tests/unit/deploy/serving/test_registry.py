"""Which table answers, who still reads an old one, and when it is let go."""

import threading
from pathlib import Path
from typing import Any

import pytest
from helpers.serving import constant_table
from helpers.tables import make_table

from graphsys.core.errors import CorruptError
from graphsys.core.progress import Progress
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.registry import TableRegistry
from graphsys.deploy.serving.served_table import ServedTable, open_served
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.storage.embeddings import EmbeddingTable

SETTINGS = ServeSettings()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[TableRegistry, EmbeddingTable, EmbeddingTable]:
    registry = TableRegistry(SETTINGS)
    tables = constant_table(tmp_path / "a", 1.0), constant_table(tmp_path / "b", 2.0)
    for table in tables:
        registry.add(table.path)
    return registry, *tables


def flip_byte(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)


def states(registry: TableRegistry) -> dict[str, str]:
    return {listing.version: listing.state for listing in registry.listing()}


def test_nothing_answers_before_the_first_activation(
    pair: tuple[TableRegistry, EmbeddingTable, EmbeddingTable],
) -> None:
    registry, first, _ = pair
    with pytest.raises(Problem, match="no table is active") as caught, registry.lease():
        pass
    assert caught.value.status == 503
    with (
        pytest.raises(Problem, match=f"version '{first.version}' is not loaded") as caught,
        registry.lease(first.version),
    ):
        pass
    assert caught.value.status == 404


def test_an_old_table_answers_those_who_hold_it_and_is_unmapped_after_the_last(tmp_path: Path) -> None:
    registry = TableRegistry(SETTINGS)
    paths = [constant_table(tmp_path / name, value).path for name, value in (("a", 1.0), ("b", 2.0))]
    first, second = (registry.add(path) for path in paths)
    registry.activate(first)
    old = EmbeddingTable.open(paths[0]).vectors.path.resolve()
    with registry.lease() as outer, registry.lease() as inner:
        registry.activate(second)
        assert states(registry) == {first: "retiring", second: "active"}
        assert outer.lookup([0])[0][0, 0] == inner.lookup([0])[0][0, 0] == 1.0
        with registry.lease() as new:
            assert new.lookup([0])[0][0, 0] == 2.0
        with registry.lease(first) as named:
            assert named.version == first
        assert str(old) in Path("/proc/self/maps").read_text()
    del outer, inner, new, named
    assert str(old) not in Path("/proc/self/maps").read_text()
    assert states(registry) == {first: "known", second: "active"}
    registry.activate(first)
    with registry.lease() as again:
        assert again.lookup([0])[0][0, 0] == 1.0
    registry.close()


def test_a_damaged_table_is_refused_with_its_chunk_and_the_active_one_stays(
    pair: tuple[TableRegistry, EmbeddingTable, EmbeddingTable],
) -> None:
    registry, first, second = pair
    registry.activate(first.version)
    flip_byte(second.vectors.path, 100)
    with pytest.raises(CorruptError, match="chunk 0 is corrupt"):
        registry.activate(second.version)
    assert states(registry) == {first.version: "active", second.version: "refused"}
    assert "chunk 0 is corrupt" in (registry.listing()[1].error or "")
    with registry.lease() as table:
        assert table.version == first.version
    flip_byte(second.vectors.path, 100)
    registry.activate(second.version)
    assert registry.listing()[1].error is None
    registry.close()


def test_a_path_that_holds_another_table_by_now_is_refused(tmp_path: Path) -> None:
    registry = TableRegistry(SETTINGS)
    table = constant_table(tmp_path / "a", 1.0)
    registry.add(table.path)
    make_table(tmp_path / "a", table.vectors.read() + 1, overwrite=True)
    with pytest.raises(Problem, match="by now, no longer") as caught:
        registry.activate(table.version)
    assert caught.value.status == 409
    new = registry.add(table.path)
    assert new != table.version
    registry.activate(new)
    registry.close()


def test_an_unknown_version_cannot_become_active(pair: tuple[TableRegistry, EmbeddingTable, EmbeddingTable]) -> None:
    registry, _, _ = pair
    with pytest.raises(Problem, match="no table has version 'nope'") as caught:
        registry.activate("nope")
    assert caught.value.status == 404


def test_a_second_activation_while_one_is_under_way_is_refused(tmp_path: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def waiting(path: Path, settings: ServeSettings, progress: Progress) -> ServedTable:
        begun.set()
        assert go_on.wait(20)
        return open_served(path, settings, progress)

    registry = TableRegistry(SETTINGS, opener=waiting)
    version = registry.add(constant_table(tmp_path / "a", 1.0).path)
    thread = threading.Thread(target=registry.activate, args=(version,))
    thread.start()
    assert begun.wait(20)
    assert states(registry) == {version: "loading"}
    with pytest.raises(Problem, match="another table is being activated") as caught:
        registry.activate(version)
    assert caught.value.status == 409
    go_on.set()
    thread.join(20)
    assert registry.active == version
    registry.close()


def test_a_table_whose_last_lease_ends_while_it_becomes_active_again_answers(
    pair: tuple[TableRegistry, EmbeddingTable, EmbeddingTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, first, second = pair
    registry.activate(first.version)
    lease = registry.lease()
    lease.__enter__()
    registry.activate(second.version)
    swap = registry._swap

    def ends_before_the_exchange(*arguments: Any) -> Any:
        lease.__exit__(None, None, None)
        monkeypatch.undo()
        return swap(*arguments)

    monkeypatch.setattr(registry, "_swap", ends_before_the_exchange)
    registry.activate(first.version)
    with registry.lease() as table:
        assert table.lookup([3])[0].tolist() == [[1.0] * 8]
