"""What a server refuses, and clients that send or read slowly, over real sockets."""

import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme
from helpers.serving import WAIT_S, client_of, counting_table, running, service_with

from graphsys.core.errors import ConfigError
from graphsys.deploy.serving.listening import check_certificate
from graphsys.deploy.serving.served_table import ServedTable
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.storage.embeddings import EmbeddingTable

LOOKUP = "/v1/embeddings/lookup"
TOKEN = "a-long-enough-token"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTable:
    return counting_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTable:
    """Return a table whose look-ups are large: 64 KiB a row."""
    return counting_table(tmp_path_factory.mktemp("wide"), rows=8, dim=16384)


def connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=WAIT_S)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def send_on(connection: socket.socket) -> None:
    for _ in range(1000):
        connection.sendall(b" " * 1000)
        time.sleep(0.01)


def slow(monkeypatch: pytest.MonkeyPatch, release: threading.Event) -> None:
    """Let every look-up wait for ``release``, in a thread of its own."""
    look_up = ServedTable.lookup

    def waiting(self: ServedTable, ids: object) -> object:
        assert release.wait(WAIT_S)
        return look_up(self, ids)

    monkeypatch.setattr(ServedTable, "lookup", waiting)
    monkeypatch.setattr("graphsys.deploy.serving.table_routes.QUICK_NUMBERS", 0)


def test_a_body_that_is_too_large_is_refused_whether_its_length_is_told_or_not(table: EmbeddingTable) -> None:
    with client_of(service_with(table, max_body_bytes=1000)) as client:
        headers = {"content-type": "application/json"}
        told = client.post(LOOKUP, content=b"x" * 1001, headers=headers)
        untold = client.post(LOOKUP, content=iter([b"x" * 600] * 2), headers=headers)
        assert [told.status_code, untold.status_code] == [413, 413]
        assert "larger than 1000 B" in told.json()["detail"]
        assert client.post(LOOKUP, json={"ids": [1]}).status_code == 200


def test_a_request_too_many_is_refused_and_those_before_it_are_answered(
    table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    service = service_with(table, max_concurrency=2, max_waiting=1)
    slow(monkeypatch, release)
    with client_of(service) as client, ThreadPoolExecutor(3) as pool:
        first = [pool.submit(client.post, LOOKUP, json={"ids": [row]}) for row in range(3)]
        deadline = time.monotonic() + WAIT_S
        while service.telemetry.registry.get_sample_value("graphsys_requests_in_flight") != 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.2)  # from a request's head to its turn
        refused = client.post(LOOKUP, json={"ids": [1]})
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert "requests wait already" in refused.json()["detail"]
        assert client.get("/health/live").status_code == 200
        release.set()
        assert [reply.result().status_code for reply in first] == [200] * 3


def test_work_that_takes_too_long_is_given_up(table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    service = service_with(table, request_time_s=0.2)
    slow(monkeypatch, release)
    with client_of(service) as client:
        reply = client.post(LOOKUP, json={"ids": [1]})
        release.set()
        assert reply.status_code == 503
        assert "longer than 0.2 s" in reply.json()["detail"]


def test_a_head_or_body_that_dribbles_in_is_given_up_and_others_are_answered_meanwhile(table: EmbeddingTable) -> None:
    with client_of(service_with(table, body_time_s=0.5)) as client:
        url = str(client.base_url)
        with connected(url) as silent, connected(url) as head, connected(url) as body:
            head.sendall(b"POST /v1/embeddings/lookup HTTP/1.1\r\nHost: here\r\nX-")
            body.sendall(
                b"POST /v1/embeddings/lookup HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
                b"Content-Length: 500\r\n\r\n{"
            )
            assert client.post(LOOKUP, json={"ids": [1]}).status_code == 200
            for connection, says in ((silent, b"head of the request"), (head, b"head of the request"), (body, b"body")):
                reply = read_all(connection)
                assert reply.startswith(b"HTTP/1.1 408")
                assert says in reply


def test_a_head_without_end_and_rubbish_are_refused(table: EmbeddingTable) -> None:
    with running(service_with(table, max_header_bytes=2000)) as url:
        with connected(url) as endless:
            endless.sendall(b"GET / HTTP/1.1\r\n" + (b"X-Filler: " + b"x" * 90 + b"\r\n") * 40)
            assert read_all(endless).startswith(b"HTTP/1.1 431")
        with connected(url) as rubbish:
            rubbish.sendall(b"\x16\x03\x01 what is this\r\n\r\n")
            assert read_all(rubbish).startswith(b"HTTP/1.1 400")


def test_a_client_that_does_not_read_is_dropped_and_holds_nobody_up(wide: EmbeddingTable) -> None:
    # 800 rows of 64 KiB are more than the system buffers for one connection.
    service = service_with(wide, send_time_s=0.5, max_concurrency=1)
    with client_of(service) as client, connected(str(client.base_url)) as lazy:
        ids = b",".join([b"1"] * 800)
        lazy.sendall(
            b"POST /v1/embeddings/lookup HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            b"Accept: application/vnd.apache.arrow.stream\r\n"
            b"Content-Length: %d\r\n\r\n" % (len(ids) + 10) + b'{"ids":[' + ids + b"]}"
        )
        time.sleep(0.3)
        assert client.post(LOOKUP, json={"ids": [1]}).status_code == 200
        time.sleep(0.7)
        received = read_all(lazy)
        assert received.startswith(b"HTTP/1.1 200")
        assert len(received) < 800 << 16
        assert client.get("/health/live").status_code == 200


def test_a_connection_that_asks_nothing_more_is_closed(table: EmbeddingTable) -> None:
    with running(service_with(table, idle_time_s=0.5)) as url, connected(url) as idle:
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n")
        started = time.monotonic()
        assert read_all(idle).endswith(b'{"status":"live"}')
        assert 0.5 < time.monotonic() - started < 5


def test_what_a_refused_body_still_sends_is_thrown_away_but_not_for_ever(
    table: EmbeddingTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphsys.deploy.serving.protocol.LINGER_S", 0.3)
    with running(service_with(table, max_body_bytes=1000)) as url, connected(url) as stubborn:
        head = b"POST /v1/embeddings/lookup HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        stubborn.sendall(head + b"Content-Length: 100000000\r\n\r\n")
        with pytest.raises(ConnectionError):
            send_on(stubborn)


def test_a_connection_too_many_is_refused(table: EmbeddingTable) -> None:
    with running(service_with(table, max_connections=3)) as url:
        open_ones = [connected(url) for _ in range(3)]
        time.sleep(0.2)
        with connected(url) as fourth:
            assert read_all(fourth).startswith(b"HTTP/1.1 503")
        for connection in open_ones:
            connection.close()


def test_a_server_with_tokens_shows_only_what_holds_no_data(table: EmbeddingTable, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(TOKEN)
    with client_of(service_with(table, token_file=tmp_path / "tokens")) as client:
        for path in ("/health/live", "/health/ready", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200, path
        for path in ("/v1/tables", "/metrics"):
            assert client.get(path).status_code == 401, path
        assert client.post(LOOKUP, json={"ids": [1]}).status_code == 401
        asked = client.post(LOOKUP, json={"ids": [1]}, headers={"authorization": f"Bearer {TOKEN}"})
        assert asked.status_code == 200
        assert client.get("/openapi.json").json()["paths"]["/v1/tables"]["get"]["security"] == [{"token": []}]


def test_https_is_served_with_a_certificate_and_a_wrong_one_is_refused(table: EmbeddingTable, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other.pem"
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    authority.issue_cert("elsewhere").private_key_pem.write_to_path(other)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with client_of(service_with(table, tls_cert=cert, tls_key=key), verify=context) as client:
        assert str(client.base_url).startswith("https://")
        assert client.post(LOOKUP, json={"ids": [2]}).json()["found"] == [True]
    with pytest.raises(ConfigError, match="no certificate and its key"):
        check_certificate(ServeSettings(tls_cert=cert, tls_key=other))
