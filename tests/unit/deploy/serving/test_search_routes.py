"""Neighbours over HTTP, as a client sees them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from helpers.serving import WAIT_S, client_of, constant_table, counting_table, service_with
from helpers.tables import make_table

from graphsys.deploy.serving.search_routes import SEARCH_KEY
from graphsys.deploy.serving.wire import ARROW

URL = "/v1/embeddings/search"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    line = np.stack([np.arange(50), np.ones(50)], axis=1).astype(np.float32)
    table = make_table(tmp_path_factory.mktemp("line"), line, ids=[f"p{row}" for row in range(50)])
    with client_of(service_with(table, metric="l2", max_ids=20, max_k=30)) as opened:
        yield opened


def arrow_body(column: str, values: Any, **options: Any) -> bytes:
    schema = pa.schema([pa.field(column, values.type)], metadata={SEARCH_KEY: json.dumps(options)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch([values], schema=schema))
    return bytes(sink.getvalue())


def test_neighbours_of_ids_come_nearest_first_and_leave_the_node_itself_out(client: httpx.Client) -> None:
    reply = client.post(URL, json={"ids": ["p7", "nobody", "p0"], "k": 2})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["found"] == [True, False, True]
    assert body["metric"] == "l2"
    assert body["neighbors"] == [
        [{"id": "p6", "score": 1.0}, {"id": "p8", "score": 1.0}],
        [],
        [{"id": "p1", "score": 1.0}, {"id": "p2", "score": 2.0}],
    ]
    itself = client.post(URL, json={"ids": ["p7"], "k": 1, "include_self": True}).json()
    assert itself["neighbors"] == [[{"id": "p7", "score": 0.0}]]


def test_neighbours_of_vectors_by_any_metric(client: httpx.Client) -> None:
    asked = {"vectors": [[7.2, 1.0], [0.0, 1.0]], "k": 1}
    assert [row[0]["id"] for row in client.post(URL, json=asked).json()["neighbors"]] == ["p7", "p0"]
    assert [row[0]["id"] for row in client.post(URL, json={**asked, "metric": "dot"}).json()["neighbors"]] == [
        "p49",
        "p0",
    ]
    assert client.post(URL, json={**asked, "metric": "cosine", "exact": True}).json()["metric"] == "cosine"


def test_arrow_goes_in_and_comes_out(client: httpx.Client) -> None:
    kind = {"content-type": ARROW}
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([7.2, 1.0, 0.0, 1.0], pa.float32()), 2)
    for content in (
        arrow_body("vector", vectors, k=1),
        arrow_body("id", pa.array(["p7", "p0"]), k=1, include_self=True),
    ):
        reply = client.post(URL, content=content, headers=kind)
        assert reply.status_code == 200, reply.text
        table = pa.ipc.open_stream(reply.content).read_all()
        assert table.column("query").to_pylist() == [0, 1]
        assert table.column("id").to_pylist() == ["p7", "p0"]
        assert table.schema.field("score").type == pa.float32()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"ids": ["p1"], "k": 0}, "k is 0; ask for 1 to 30"),
        ({"ids": ["p1"], "k": 1_000_000}, "k is 1000000; ask for 1 to 30"),
        ({"ids": ["p1"], "metric": "manhattan"}, "metric"),
        ({"ids": ["p1"], "node_type": "author"}, "the table holds nodes of type 'paper'"),
        ({"k": 3}, "give either ids or vectors"),
        ({"ids": ["p1"], "vectors": [[1, 2]]}, "give either ids or vectors"),
        ({"ids": ["p1"] * 21}, "21 ids or vectors; at most 20"),
        ({"vectors": [[1, 2, 3]]}, "the table needs [number of queries, 2]"),
        ({"vectors": [[1, 2], [1]]}, "they have 1 to 2 numbers"),
    ],
)
def test_a_wrong_question_is_told_what_is_wrong(client: httpx.Client, body: dict[str, Any], says: str) -> None:
    reply = client.post(URL, json=body)
    assert reply.status_code == 422, reply.text
    assert says in reply.json()["detail"]


def test_a_vector_that_is_not_finite_is_refused(client: httpx.Client) -> None:
    reply = client.post(URL, content=b'{"vectors": [[1.0, NaN]]}', headers={"content-type": "application/json"})
    assert reply.status_code in (400, 422), reply.text
    body = arrow_body("vector", pa.FixedSizeListArray.from_arrays(pa.array([1.0, float("nan")]), 2))
    reply = client.post(URL, content=body, headers={"content-type": ARROW})
    assert reply.status_code == 422
    assert "query 0 holds nan at place 1" in reply.json()["detail"]


def test_arrow_that_says_something_else_is_refused(client: httpx.Client) -> None:
    for content, says in (
        (arrow_body("name", pa.array(["p1"])), "send one column, 'id' or 'vector'"),
        (arrow_body("id", pa.array(["p1"]), kk=3), "graphsys.search: kk: Extra inputs are not permitted (found 3)"),
        (arrow_body("vector", pa.array(["p1"])), "send lists of numbers"),
        (arrow_body("vector", pa.array([[1.0, None]])), "nulls"),
    ):
        reply = client.post(URL, content=content, headers={"content-type": ARROW})
        assert reply.status_code == 422, reply.text
        assert says in reply.json()["detail"]


def test_the_listing_says_how_a_table_is_searched(client: httpx.Client) -> None:
    (listed,) = client.get("/v1/tables").json()["tables"]
    assert listed["provenance"]["index"]["kind"] == "exact"
    assert "50 rows" in listed["provenance"]["index"]["reason"]


def test_batches_are_counted(client: httpx.Client) -> None:
    client.post(URL, json={"ids": ["p1", "p2"]})
    assert 'graphsys_batch_size_count{kind="search"}' in client.get("/metrics").text


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
def test_no_question_has_no_answer(client: httpx.Client, kind: Any) -> None:
    body = arrow_body("vector", pa.array([], kind))
    headers = {"content-type": ARROW, "accept": "application/json"}
    replies = [client.post(URL, json={"vectors": []}), client.post(URL, content=body, headers=headers)]
    assert [(reply.status_code, reply.json()["neighbors"]) for reply in replies] == [(200, [])] * 2


def test_a_search_that_took_too_long_stops_and_lets_go_of_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = service_with(
        counting_table(tmp_path / "a", rows=9000, dim=256), constant_table(tmp_path / "b", 1.0), request_time_s=0.3
    )
    first, second = (listing.version for listing in service.registry.listing())
    scanned: list[float] = []

    def slowly(*_: Any) -> None:
        scanned.append(time.monotonic())
        time.sleep(0.2)

    monkeypatch.setattr("graphsys.deploy.serving.exact.scan", slowly)
    with client_of(service) as client:
        reply = client.post(URL, json={"ids": list(range(1000)), "k": 1})  # 32 passes of 9 blocks
        assert reply.status_code == 503
        assert "longer than 0.3 s" in reply.json()["detail"]
        given_up = time.monotonic()
        service.registry.activate(second)
        while {item.version: item.state for item in service.registry.listing()}[first] != "known":
            assert time.monotonic() < given_up + WAIT_S
            time.sleep(0.01)
    assert scanned[-1] < given_up + 1
