"""A server that is asked without pause: tables change, clients come in crowds, and no request is lost."""

import asyncio
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from helpers.serving import WAIT_S, client_of, constant_table, running, service_with

from graphsys.deploy.serving.service import Service

LOOKUP = "/v1/embeddings/lookup"
ACTIVATIONS = 200
CROWD = 1000


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return service_with(*(constant_table(tmp_path / f"t{value}", float(value)) for value in range(3)))


def test_two_hundred_activations_under_load_lose_no_request_and_mix_no_tables(service: Service) -> None:
    value_of = {listing.version: float(value) for value, listing in enumerate(service.registry.listing())}
    stop = threading.Event()
    answers: list[tuple[int, str, set[float]]] = []

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=WAIT_S) as client:
            while not stop.is_set():
                reply = client.post(LOOKUP, json={"ids": [0, 7, 49]})
                body = reply.json()
                values = {number for vector in body.get("vectors", []) for number in vector}
                answers.append((reply.status_code, body.get("version", ""), values))

    with client_of(service) as client:
        askers = [threading.Thread(target=ask, args=(str(client.base_url),)) for _ in range(3)]
        for asker in askers:
            asker.start()
        versions = list(value_of)
        for turn in range(ACTIVATIONS):
            reply = client.post(f"/v1/tables/{versions[turn % 3]}/activate")
            assert reply.status_code == 200, reply.text
        stop.set()
        for asker in askers:
            asker.join(WAIT_S)
    assert {status for status, _, _ in answers} == {200}
    assert all(values == {value_of[version]} for _, version, values in answers)
    assert {version for _, version, _ in answers} == set(versions)
    assert len(answers) > ACTIVATIONS


def test_a_thousand_connections_are_answered_and_silent_ones_stall_nobody(service: Service) -> None:
    request = (
        b"POST /v1/embeddings/lookup HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
        b'Content-Length: 13\r\n\r\n{"ids":[1,2]}'
    )

    async def one(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return head[:12]

    async def crowd(port: int) -> list[bytes]:
        async with asyncio.timeout(WAIT_S * 2):
            return await asyncio.gather(*(one(port) for _ in range(CROWD)))

    with running(service) as url:
        port = int(url.rpartition(":")[2])
        silent = [socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) for _ in range(100)]
        for connection in silent:
            connection.sendall(request[:-5])  # a body that never ends
        assert set(asyncio.run(crowd(port))) == {b"HTTP/1.1 200"}
        with httpx.Client(base_url=url) as client:
            started = time.monotonic()
            assert client.post(LOOKUP, json={"ids": [1]}).status_code == 200
            assert time.monotonic() - started < 1
        for connection in silent:
            connection.close()


def test_a_stopping_server_answers_what_it_was_asked_before(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphsys.deploy.serving.served_table import ServedTable

    begun = threading.Event()
    look_up = ServedTable.lookup

    def slowly(self: ServedTable, ids: object) -> object:
        begun.set()
        time.sleep(0.5)
        return look_up(self, ids)

    monkeypatch.setattr(ServedTable, "lookup", slowly)
    monkeypatch.setattr("graphsys.deploy.serving.table_routes.QUICK_NUMBERS", 0)
    replies: list[int] = []
    with running(service) as url:
        asker = threading.Thread(
            target=lambda: replies.append(httpx.post(url + LOOKUP, json={"ids": [1]}, timeout=WAIT_S).status_code)
        )
        asker.start()
        assert begun.wait(WAIT_S)
    asker.join(WAIT_S)
    assert replies == [200]
