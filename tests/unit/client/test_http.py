"""Requests are repeated where that is safe, and nowhere else; what goes wrong is told in one sentence."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pyarrow as pa
import pytest

from graphsys.client import Client, RefusedError, UnreachableError
from graphsys.client.retry import Patience, UnsentError
from graphsys.core.errors import ConfigError

Reply = tuple[int, dict[str, str], bytes]
BUSY: Reply = (429, {"retry-after": "0"}, b'{"title": "Too Many Requests", "status": 429, "detail": "busy"}')
TABLES: Reply = (200, {}, b'{"active": null, "tables": []}')
BROKEN: Reply = (0, {}, b"")  # the connection ends without an answer


@contextmanager
def scripted(*replies: Reply, pause_s: float = 0.0) -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of a server that gives ``replies`` in turn, the last one again and again, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status, headers, body = replies[min(len(asked), len(replies) - 1)]
            asked.append(f"{self.command} {self.path} {self.headers.get('authorization')}")
            time.sleep(pause_s)
            if not status:
                return
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(BrokenPipeError):  # a client that waited long enough is gone
                self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join(10)


def test_a_busy_server_is_asked_again_when_it_says_when_to_come_back() -> None:
    with scripted(BUSY, BUSY, TABLES) as (url, asked), Client(url, token="t" * 16) as client:
        assert client.tables().tables == ()
    assert asked == [f"GET /v1/tables Bearer {'t' * 16}"] * 3


def test_a_busy_server_is_left_alone_in_the_end() -> None:
    with scripted(BUSY) as (url, asked), Client(url, retries=2) as client:
        with pytest.raises(RefusedError, match=r"Too Many Requests \(429\): busy") as refused:
            client.tables()
        assert refused.value.retry_after_s == 0
        assert len(asked) == 3


@pytest.mark.parametrize("reply", [(503, {}, b"later"), (500, {"retry-after": "0"}, b"{}"), (422, {}, b"[]")])
def test_a_refusal_that_says_no_time_is_not_repeated(reply: Reply) -> None:
    with scripted(reply) as (url, asked), Client(url) as client:
        with pytest.raises(RefusedError) as refused:
            client.tables()
        assert refused.value.status == reply[0]
        assert len(asked) == 1


def test_a_question_whose_connection_broke_is_repeated() -> None:
    with scripted(BROKEN, TABLES) as (url, asked), Client(url) as client:
        assert client.tables().active is None
        assert len(asked) == 2


def test_an_activation_whose_connection_broke_is_not() -> None:
    with scripted(BROKEN, TABLES) as (url, asked), Client(url) as client:
        with pytest.raises(UnreachableError, match="broke the connection off"):
            client.activate("v")
        assert len(asked) == 1


def test_an_answer_that_takes_too_long_is_not_waited_for() -> None:
    with (
        scripted(TABLES, pause_s=0.6) as (url, _),
        Client(url, timeout_s=0.15) as client,
        pytest.raises(UnreachableError, match=r"did not answer within 0.15 seconds"),
    ):
        client.tables()


def test_something_else_than_json_is_no_answer() -> None:
    with (
        scripted((200, {}, b"<html>")) as (url, _),
        Client(url) as client,
        pytest.raises(UnreachableError, match="something else than JSON"),
    ):
        client.tables()


def test_numbers_that_are_not_finite_come_as_nan() -> None:
    reply = b'{"version": "v", "dim": 2, "found": [true, false], "vectors": [[1.5, null], null]}'
    with scripted((200, {}, reply)) as (url, _), Client(url) as client:
        np.testing.assert_array_equal(client.lookup([1, 2]).vectors, np.array([[1.5, np.nan], [0, 0]], np.float32))


def test_neighbours_come_in_arrays_with_their_number() -> None:
    near = b'[[{"id": "a", "score": 0.5}, {"id": "b", "score": 0.25}], [{"id": "c", "score": 1}]]'
    reply = b'{"version": "v", "metric": "dot", "found": [true, true], "neighbors": %s}' % near
    with scripted((200, {}, reply)) as (url, _), Client(url) as client:
        found = client.search(ids=["x", "y"], k=2)
        assert found.num_found.tolist() == [2, 1]
        assert found.ids.tolist() == [["a", "b"], ["c", ""]]
        np.testing.assert_array_equal(found.scores, np.array([[0.5, 0.25], [1, np.nan]], np.float32))
        with pytest.raises(ConfigError, match="either ids or vectors"):
            client.search()


def test_neighbours_of_vectors_travel_as_arrow() -> None:
    told = {"graphsys.version": "v", "graphsys.metric": "l2", "graphsys.num_queries": "3"}
    columns = [("query", pa.int32()), ("id", pa.int64()), ("score", pa.float32())]
    batch = pa.record_batch([[0, 2, 2], [7, 8, 9], [1.0, 2.0, 3.0]], schema=pa.schema(columns, metadata=told))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with scripted((200, {}, sink.getvalue().to_pybytes())) as (url, _), Client(url) as client:
        found = client.search(vectors=np.zeros((3, 4)), k=2, metric="l2")
        assert (found.version, found.metric) == ("v", "l2")
        assert found.num_found.tolist() == [1, 0, 2]
        assert found.ids.tolist() == [[7, 0], [0, 0], [8, 9]]
        np.testing.assert_array_equal(found.scores[2], np.array([2, 3], np.float32))
        with pytest.raises(ConfigError, match=r"vectors has the shape \(4,\)"):
            client.search(vectors=np.zeros(4))


def test_pauses_grow_and_end_with_the_time_limit() -> None:
    calls: list[float] = []

    def attempt(seconds: float) -> None:
        calls.append(seconds)
        raise UnsentError("no one there")

    started = time.monotonic()
    with pytest.raises(UnsentError):
        Patience(timeout_s=0.3, retries=1000).call(attempt)
    assert time.monotonic() - started < 0.4
    assert 2 <= len(calls) < 100
    assert calls == sorted(calls, reverse=True)


@pytest.mark.parametrize(("timeout_s", "retries"), [(0, 1), (-1.0, 1), (float("nan"), 1), (1, -1)])
def test_limits_that_are_none_are_refused(timeout_s: float, retries: int) -> None:
    with pytest.raises(ConfigError, match="give more than 0 seconds"):
        Client("http://127.0.0.1:1", timeout_s=timeout_s, retries=retries)


def test_an_answer_that_drips_in_ends_with_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
                for _ in range(1000):
                    connection.sendall(b" ")
                    time.sleep(0.02)

        threading.Thread(target=drip, daemon=True).start()
        started = time.monotonic()
        with (
            Client(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3) as client,
            pytest.raises(UnreachableError, match=r"did not answer within 0.3 seconds"),
        ):
            client.tables()
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("url", "token", "says"),
    [
        ("http://[::1", None, "write it as http://host:port"),
        ("http://here:99999", None, "write it as http://host:port"),
        ("http://here", "a-token-with-its\n", "no header can carry"),
        ("http://here", "a-tokén", "no header can carry"),
    ],
)
def test_an_address_or_a_token_that_cannot_be_sent_is_refused(url: str, token: str | None, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Client(url, token=token)
