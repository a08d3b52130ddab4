"""Arrow Flight: streams of one table each, refusals in one sentence, and an end that does not hang."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import trustme
from helpers.serving import WAIT_S, constant_table, counting_table, service_with
from helpers.tables import make_table
from pyarrow import flight

from graphsys.client import Client, RefusedError, UnreachableError
from graphsys.core.errors import ConfigError
from graphsys.deploy.serving.flight import FlightService
from graphsys.deploy.serving.service import Service
from graphsys.storage.embeddings import EmbeddingTable

ROWS, DIM = 40_000, 500  # 80 MB, more than connection and batches hold: a stream waits for who reads it
TOKEN = "the-token-of-the-tests"


@contextmanager
def serving(*tables: EmbeddingTable, **settings: Any) -> Iterator[tuple[Service, FlightService]]:
    service = service_with(*tables, flight_port=0, map_points=0, **settings)
    server = FlightService(service)
    try:
        yield service, server
    finally:
        server.stop()
        service.registry.close()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTable:
    """Row i holds i."""
    return counting_table(tmp_path_factory.mktemp("large"), rows=ROWS, dim=DIM)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTable:
    return constant_table(tmp_path_factory.mktemp("small"), 7.0)


@pytest.fixture(scope="module")
def url(small: EmbeddingTable) -> Iterator[str]:
    with serving(small, max_ids=100) as (_, server):
        yield server.url


def ticket(**values: Any) -> Any:
    return flight.Ticket(json.dumps(values).encode())


def exchange(url: str, table: Any) -> Any:
    writer, reader = flight.connect(url).do_exchange(flight.FlightDescriptor.for_command(b"{}"))
    with writer:
        writer.begin(table.schema)
        writer.write_table(table)
        writer.done_writing()
        return reader.read_all()


def soon(condition: Callable[[], bool]) -> bool:
    """Wait until ``condition`` holds; return whether it did in time."""
    end = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def state(service: Service, version: str) -> str:
    return next(item.state for item in service.registry.listing() if item.version == version)


@pytest.mark.parametrize("ids", [None, [7 * row for row in range(50)], [f"p{row}é" for row in range(50)]])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_stream_is_the_table_with_its_ids_and_its_type(tmp_path: Path, ids: Any, dtype: str) -> None:
    table = make_table(tmp_path, np.arange(150, dtype=np.float32).reshape(50, 3), ids=ids, dtype=dtype)
    with serving(table) as (_, server), Client("http://127.0.0.1:1", flight=server.url) as client:
        found = client.download(streams=2)
        assert found.ids.tolist() == (list(range(50)) if ids is None else ids)
        assert found.vectors.dtype == dtype
        np.testing.assert_array_equal(found.vectors, table.take(np.arange(50)))
        part = flight.connect(server.url).do_get(ticket(start=10, stop=12)).read_all()
        assert part.column("id").to_pylist() == found.ids[10:12].tolist()


def test_the_info_cuts_a_table_into_slices_that_follow_each_other(large: EmbeddingTable, small: EmbeddingTable) -> None:
    with serving(large, small) as (_, server):
        client = flight.connect(server.url)
        plan = flight.FlightDescriptor.for_command(b'{"streams": 3}')
        info = client.get_flight_info(plan)
        assert (info.total_records, info.total_bytes) == (ROWS, ROWS * DIM * 4)
        slices = [json.loads(endpoint.ticket.ticket) for endpoint in info.endpoints]
        assert [part["start"] for part in slices] == [0, *(part["stop"] for part in slices[:-1])]
        assert slices[-1]["stop"] == ROWS
        assert {part["table"] for part in slices} == {large.version}
        assert [found.descriptor.path for found in client.list_flights()] == [[large.version.encode()]]
        assert client.get_schema(plan).schema == info.schema
        assert info.schema.field("vector").type == pa.list_(pa.float32(), DIM)


def test_a_stream_under_way_keeps_its_table_when_another_becomes_active(
    large: EmbeddingTable, small: EmbeddingTable
) -> None:
    with serving(large, small) as (service, server):
        client = flight.connect(server.url)
        stream = client.do_get(ticket())
        first = stream.read_chunk().data
        service.registry.activate(small.version)
        assert state(service, large.version) == "retiring"
        rest = stream.read_all()
        rows = np.concatenate([first.column("vector").flatten(), rest.column("vector").combine_chunks().flatten()])
        np.testing.assert_array_equal(rows.reshape(ROWS, DIM)[:, 0], np.arange(ROWS))
        assert soon(lambda: state(service, large.version) == "known")
        assert client.do_get(ticket()).read_all().num_rows == small.num_rows


def test_a_client_that_leaves_sets_its_place_and_its_table_free(large: EmbeddingTable, small: EmbeddingTable) -> None:
    with serving(large, small, max_streams=1) as (service, server):
        client = flight.connect(server.url)
        for read in (True, False):
            stream = client.do_get(ticket())
            if read:
                stream.read_chunk()
            stream.cancel()
            del stream
            assert soon(lambda: not server._streams._open)
        service.registry.activate(small.version)
        assert state(service, large.version) == "known"


def test_more_streams_than_there_are_places_are_refused(large: EmbeddingTable) -> None:
    with serving(large, max_streams=1) as (_, server):
        client = flight.connect(server.url)
        under_way = client.do_get(ticket())
        under_way.read_chunk()
        with pytest.raises(flight.FlightUnavailableError, match="1 streams are under way; ask again"):
            client.do_get(ticket()).read_all()
        under_way.cancel()


@pytest.mark.parametrize("stopped", [False, True])
def test_a_client_that_stops_reading_is_ended(large: EmbeddingTable, stopped: bool) -> None:
    limits = {"drain_s": 0.3} if stopped else {"send_time_s": 0.3}
    with serving(large, **limits) as (_, server):
        stream = flight.connect(server.url).do_get(ticket())
        stream.read_chunk()
        started = time.monotonic()
        if stopped:
            server.stop()
            assert time.monotonic() - started < 5
        assert soon(lambda: not server._streams._open)
        with pytest.raises((flight.FlightError, pa.ArrowException, OSError)):
            stream.read_all()


def test_a_stop_lets_a_stream_under_way_end(large: EmbeddingTable) -> None:
    with serving(large, drain_s=WAIT_S) as (_, server):
        client = flight.connect(server.url)
        stream = client.do_get(ticket())
        rows = stream.read_chunk().data.num_rows
        server._streams.draining = True
        with pytest.raises(flight.FlightUnavailableError, match="the server is stopping"):
            client.do_get(ticket()).read_all()
        rows += stream.read_all().num_rows
        server.stop()
        assert rows == ROWS


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (b"{", r"the body is not JSON"),
        (b'{"rows": 1}', r"rows: Extra inputs"),
        (b'{"start": "0"}', r"start: Input should be a valid integer"),
        (b'{"start": 5, "stop": 4}', r"rows 5 to 4 are not rows of a table with 50 rows"),
        (b'{"stop": 51}', r"rows 0 to 51 are not rows"),
        (b'{"table": "nope"}', r"version 'nope' is not loaded"),
    ],
)
def test_a_ticket_of_nothing_is_refused_with_why(url: str, asked: bytes, says: str) -> None:
    with pytest.raises(flight.FlightServerError, match=says) as refused:
        flight.connect(url).do_get(flight.Ticket(asked)).read_all()
    assert "Traceback" not in str(refused.value)
    assert json.loads(refused.value.extra_info)["status"] in (400, 404, 422)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"node": [1]}, r"columns \['node'\]; send one column 'id'"),
        ({"id": [1.5]}, r"column 'id' is of type double; send int64 or string"),
        ({"id": [1, None]}, r"an id is null"),
        ({"id": np.array([1 << 63], np.uint64)}, r"the ids are not int64"),
        ({"id": list(range(101))}, r"a batch has 101 ids; at most 100"),
    ],
)
def test_ids_that_cannot_be_answered_are_refused_with_why(url: str, batch: dict[str, Any], says: str) -> None:
    with pytest.raises(flight.FlightServerError, match=says) as refused:
        exchange(url, pa.table(batch))
    assert "Traceback" not in str(refused.value)


@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_stream_without_ids_is_refused_with_why(url: str, with_metadata: bool) -> None:
    writer, reader = flight.connect(url).do_exchange(flight.FlightDescriptor.for_command(b"{}"))
    if with_metadata:
        writer.begin(pa.schema([("id", pa.int64())]))
        writer.write_metadata(b"hello")
    writer.done_writing()
    with pytest.raises(flight.FlightServerError, match=r"has metadata and no ids|ended before it began") as refused:
        reader.read_all()
    assert json.loads(refused.value.extra_info)["status"] in (400, 422)
    with pytest.raises(flight.FlightServerError):
        writer.close()


def test_only_who_brings_the_token_is_answered(small: EmbeddingTable, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\nanother-token-that-ended 2020-01-01\n")
    with serving(small, token_file=tmp_path / "tokens") as (_, server):
        for token, says in (
            (None, "Authorization: Bearer"),
            ("a-wrong-one-of-some-length", "not one of this server's"),
            ("another-token-that-ended", "expired at 2020-01-01"),
        ):
            with Client("http://127.0.0.1:1", flight=server.url, token=token) as client:
                with pytest.raises(RefusedError, match=says) as refused:
                    client.download()
                assert refused.value.status == 401
        with Client("http://127.0.0.1:1", flight=server.url, token=TOKEN) as client:
            assert len(client.download().ids) == small.num_rows


def test_tls_needs_the_authority_that_signed(small: EmbeddingTable, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(tmp_path / "cert.pem", append=number > 0)
    with serving(small, tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem") as (_, server):
        assert server.url.startswith("grpc+tls://")
        with Client("https://127.0.0.1:1", flight=server.url, ca=tmp_path / "ca.pem") as client:
            assert len(client.download().ids) == small.num_rows
        with Client("https://127.0.0.1:1", flight=server.url, ca=str(tmp_path / "ca.pem")) as client:
            assert len(client.lookup(small.ids.to_external(np.zeros(9000, np.int64))).found) == 9000
        stranger = Client("https://127.0.0.1:1", flight=server.url, retries=0, timeout_s=5)
        with stranger, pytest.raises(UnreachableError, match="cannot be reached"):
            stranger.download()


def test_a_port_that_is_taken_is_told(small: EmbeddingTable, url: str) -> None:
    with pytest.raises(ConfigError, match="choose another --flight-port"):
        FlightService(service_with(small, flight_port=int(url.rpartition(":")[2])))


def test_before_the_first_table_is_active_a_client_is_told_to_wait() -> None:
    with serving() as (_, server), pytest.raises(flight.FlightUnavailableError, match="no table is active yet"):
        flight.connect(server.url).do_get(ticket()).read_all()
