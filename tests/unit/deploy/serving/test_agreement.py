"""Servers that share a file come to the same table, whoever was told to change it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.artefacts import flip
from helpers.serving import constant_table, service_with

from graphsys.deploy.serving.agreement import Agreement, read_choice
from graphsys.deploy.serving.registry import TableRegistry
from graphsys.storage.embeddings import EmbeddingTable

Tables = tuple[EmbeddingTable, EmbeddingTable]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("tables")
    return constant_table(folder / "a", 1.0), constant_table(folder / "b", 2.0)


@pytest.fixture
def pair(tmp_path: Path, tables: Tables) -> Iterator[list[tuple[TableRegistry, Agreement]]]:
    """Two servers that begin with the first table; they look when they are told to."""
    servers = []
    for _ in range(2):
        registry = service_with().registry
        agreement = Agreement(registry, tmp_path / "active.json", every_s=3600)
        agreement.begin(registry.add(tables[0].path))
        servers.append((registry, agreement))
    yield servers
    for registry, agreement in servers:
        agreement.stop()
        registry.close()


def test_what_one_activates_the_others_follow(pair: list[tuple[TableRegistry, Agreement]], tables: Tables) -> None:
    (first, telling), (second, following) = pair
    assert first.active == second.active == tables[0].version
    for table in (tables[1], tables[0]):
        first.activate(first.add(table.path))
        telling.look()
        following.look()
        assert second.active == table.version
        first, telling, second, following = second, following, first, telling


def test_one_that_starts_later_begins_with_what_was_agreed_on(
    pair: list[tuple[TableRegistry, Agreement]], tables: Tables, tmp_path: Path
) -> None:
    registry, agreement = pair[0]
    registry.activate(registry.add(tables[1].path))
    agreement.look()
    late = service_with().registry
    joining = Agreement(late, tmp_path / "active.json", every_s=3600)
    joining.begin(late.add(tables[0].path))
    assert late.active == tables[1].version
    joining.stop()
    late.close()


def test_a_table_that_cannot_be_loaded_is_tried_once_and_the_active_one_stays(
    pair: list[tuple[TableRegistry, Agreement]], tables: Tables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (first, telling), (second, following) = pair
    bad = constant_table(tmp_path / "bad", 3.0)
    first.activate(first.add(bad.path))
    telling.look()
    flip(bad.vectors.path, 9)
    with caplog.at_level(logging.ERROR):
        following.look()
        following.look()
    assert [record.message for record in caplog.records if "chunk 0 is corrupt" in record.message] == [
        caplog.records[0].message
    ]
    assert second.active == tables[0].version


def test_a_damaged_file_changes_nothing(
    pair: list[tuple[TableRegistry, Agreement]], tables: Tables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "active.json").write_bytes(b"{")
    with caplog.at_level(logging.ERROR):
        pair[1][1].look()
    assert "do not agree" in caplog.text
    assert pair[1][0].active == tables[0].version
    pair[0][0].activate(pair[0][0].add(tables[1].path))
    pair[0][1].look()
    choice = read_choice(tmp_path / "active.json")
    assert choice is not None
    assert (choice.version, choice.path) == (tables[1].version, tables[1].path)
