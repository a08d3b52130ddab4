"""The client against a real server: what is asked is what is answered, over HTTP and over Arrow Flight."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.serving import constant_table, counting_table, running, service_with

from graphsys.client import Client, RefusedError, UnreachableError
from graphsys.core.errors import ConfigError
from graphsys.deploy.serving.flight import FlightService
from graphsys.deploy.serving.service import Service
from graphsys.storage.embeddings import EmbeddingTable

ROWS = 9000


@dataclass(frozen=True)
class Served:
    """A server of two tables; the first is active."""

    service: Service
    url: str
    flight: str
    counting: EmbeddingTable  # row i holds i
    constant: EmbeddingTable


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("tables")
    counting, constant = counting_table(folder / "a", rows=ROWS), constant_table(folder / "b", 7.0)
    service = service_with(counting, constant, flight_port=0)
    server = FlightService(service)
    with running(service) as url:
        yield Served(service, url, server.url, counting, constant)
        server.stop()


@pytest.fixture(params=["http", "flight"])
def client(request: pytest.FixtureRequest, served: Served) -> Iterator[Client]:
    with Client(served.url, flight=served.flight if request.param == "flight" else None) as opened:
        yield opened


@pytest.mark.parametrize("count", [1, 63, 64, 8999])
def test_vectors_come_in_the_order_of_the_ids_whatever_way_they_take(
    client: Client, served: Served, count: int
) -> None:
    ids = np.arange(count)[::-1]
    for asked in (ids, ids.tolist(), [str(value) for value in ids]):
        answer = client.lookup(asked)
        assert answer.version == served.counting.version
        assert answer.found.all()
        assert answer.vectors.dtype == np.float32
        np.testing.assert_array_equal(answer.vectors, np.repeat(ids[:, None], 4, axis=1))


@pytest.mark.parametrize("count", [1, 100, 8500])
def test_an_unknown_id_has_zeros_and_is_told(client: Client, count: int) -> None:
    answer = client.lookup([*range(1, count + 1), -5])
    assert answer.found.tolist() == [True] * count + [False]
    assert not answer.vectors[-1].any()
    assert answer.vectors[:-1].all()


def test_ids_of_both_kinds_are_answered_by_http(client: Client) -> None:
    ids: list[Any] = [1, "2"] * 50
    assert client.lookup(ids).vectors[:, 0].tolist() == [1, 2] * 50


def test_a_table_that_is_not_loaded_is_refused_with_what_to_do(client: Client, served: Served) -> None:
    for count in (1, 100, 8500):
        with pytest.raises(RefusedError, match=r"not loaded.*activate loads a known one") as refused:
            client.lookup(list(range(count)), version=served.constant.version)
        assert (refused.value.status, refused.value.title) == (404, "Not Found")


def test_tables_are_listed_and_activated(client: Client, served: Served) -> None:
    before = client.tables()
    assert before.active == served.counting.version
    assert {table.version for table in before.tables} == {served.counting.version, served.constant.version}
    try:
        assert client.activate(served.constant.version).state == "active"
        assert client.lookup([3]).vectors.tolist() == [[7.0] * 8]
    finally:
        client.activate(served.counting.version)
    with pytest.raises(RefusedError, match="no table has version 'nope'"):
        client.activate("nope")


@pytest.mark.parametrize("streams", [1, 3])
def test_a_download_is_the_table(served: Served, streams: int) -> None:
    with Client(served.url, flight=served.flight) as client:
        found = client.download(streams=streams)
    assert found.version == served.counting.version
    np.testing.assert_array_equal(found.ids, np.arange(ROWS))
    np.testing.assert_array_equal(found.vectors, served.counting.take(np.arange(ROWS)))


def test_a_download_without_flight_says_what_is_missing(served: Served) -> None:
    with Client(served.url) as client, pytest.raises(ConfigError, match="needs Arrow Flight"):
        client.download()


def test_a_server_that_is_not_there_is_told_by_its_address(tmp_path: Path) -> None:
    with Client("http://127.0.0.1:9", flight="grpc://127.0.0.1:9", retries=1) as client:
        with pytest.raises(UnreachableError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
            client.tables()
        with pytest.raises(UnreachableError, match=r"grpc://127\.0\.0\.1:9 cannot be reached"):
            client.download()
    with pytest.raises(ConfigError, match="write it as http://host:port"):
        Client("127.0.0.1:9")
    with pytest.raises(ConfigError, match="write it as grpc://host:port"):
        Client("http://127.0.0.1:9", flight="127.0.0.1:9")
    with pytest.raises(ConfigError, match="cannot be"):
        Client("https://127.0.0.1:9", ca=tmp_path / "none.pem")
