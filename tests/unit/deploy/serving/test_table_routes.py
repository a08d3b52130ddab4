"""Look-up and activation over HTTP, as a client sees them."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from helpers.serving import client_of, constant_table, counting_table, service_with

from graphsys.deploy.serving.wire import ARROW


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("tables")
    service = service_with(counting_table(folder / "a"), constant_table(folder / "b", 7.0), max_ids=100)
    with client_of(service) as opened:
        yield opened


def test_vectors_come_in_the_order_of_the_ids_and_an_unknown_one_is_no_error(client: httpx.Client) -> None:
    reply = client.post("/v1/embeddings/lookup", json={"ids": [3, 999, "1"]})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    assert body["found"] == [True, False, True]
    assert body["vectors"] == [[3.0] * 4, None, [1.0] * 4]
    assert body["dim"] == 4
    assert body["version"] == client.get("/v1/tables").json()["active"]


def test_an_arrow_stream_is_answered_with_one(client: httpx.Client) -> None:
    batch = pa.record_batch([pa.array([5, -1, 49])], names=["id"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    reply = client.post("/v1/embeddings/lookup", content=bytes(sink.getvalue()), headers={"content-type": ARROW})
    assert reply.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(reply.content).read_all()
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 4)
    assert table.column("vector").to_pylist() == [[5.0] * 4, None, [49.0] * 4]
    assert table.column("id").to_pylist() == [5, -1, 49]
    assert table.column("found").to_pylist() == [True, False, True]
    assert table.schema.metadata[b"graphsys.version"].decode() == client.get("/v1/tables").json()["active"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b'{"ids": [1', "application/json", 400, "the body is not JSON"),
        (b'{"ids": [1.5]}', "application/json", 422, "ids.0"),
        (b'{"idz": [1]}', "application/json", 422, "idz"),
        (b'{"ids": [1]}', "text/plain", 415, "content-type is 'text/plain'"),
        (b"no arrow", ARROW, 400, "the body is not an Arrow stream"),
        (b'{"ids": %s}' % str(list(range(101))).encode(), "application/json", 422, "101 ids; at most 100"),
        (b'{"ids": [1], "version": "nope"}', "application/json", 404, "version 'nope' is not loaded"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(
    client: httpx.Client, body: bytes, content_type: str, status: int, says: str
) -> None:
    reply = client.post("/v1/embeddings/lookup", content=body, headers={"content-type": content_type})
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert says in reply.json()["detail"]
    assert reply.json()["status"] == status


def test_activation_changes_the_table_that_answers(client: httpx.Client) -> None:
    before = client.get("/v1/tables").json()
    other = next(table["version"] for table in before["tables"] if table["version"] != before["active"])
    activated = client.post(f"/v1/tables/{other}/activate")
    assert activated.status_code == 200, activated.text
    assert activated.json()["state"] == "active"
    reply = client.post("/v1/embeddings/lookup", json={"ids": [0]}).json()
    assert reply["version"] == other
    assert np.asarray(reply["vectors"]).tolist() == [[7.0] * 8]
    client.post(f"/v1/tables/{before['active']}/activate")


def test_health_and_figures_are_answered(client: httpx.Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    assert client.get("/health/ready").json() == {"status": "ready"}
    figures = client.get("/metrics").text
    assert 'graphsys_requests_total{method="GET",route="/health/live",status="200"}' in figures


def test_the_description_names_every_route(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/embeddings/lookup", "/v1/tables", "/v1/tables/{version}/activate", "/metrics"} <= set(paths)


def test_a_damaged_table_is_refused_with_its_chunk_and_the_active_one_answers_on(tmp_path: Path) -> None:
    good, damaged = counting_table(tmp_path / "a"), constant_table(tmp_path / "b", 7.0)
    raw = bytearray(damaged.vectors.path.read_bytes())
    raw[3] ^= 1
    damaged.vectors.path.write_bytes(raw)
    with client_of(service_with(good, damaged)) as client:
        refused = client.post(f"/v1/tables/{damaged.version}/activate")
        assert refused.status_code == 409
        assert "chunk 0 is corrupt" in refused.json()["detail"]
        assert client.post("/v1/tables/nope/activate").status_code == 404
        assert client.post("/v1/embeddings/lookup", json={"ids": [1]}).json()["version"] == good.version
        states = {table["version"]: table["state"] for table in client.get("/v1/tables").json()["tables"]}
        assert states == {good.version: "active", damaged.version: "refused"}


def test_what_clients_make_up_becomes_no_label(client: httpx.Client) -> None:
    for path in ("/x1", "/x2", "/v1/tables/made-up/activate"):
        client.request("PROPFIND", path)
        client.get(path)
    figures = client.get("/metrics").text
    assert "made-up" not in figures
    assert "/x1" not in figures
    assert "PROPFIND" not in figures
    assert 'route="other"' in figures
    assert 'method="other"' in figures


def test_integers_no_table_could_hold_are_not_found(client: httpx.Client) -> None:
    ids = f'[{1 << 70}, {-(1 << 70)}, 3, "4", "{1 << 70}", {(1 << 63) - 1}]'
    body = b'{"ids": %s}' % ids.encode()
    reply = client.post("/v1/embeddings/lookup", content=body, headers={"content-type": "application/json"})
    assert reply.json()["found"] == [False, False, True, True, False, False]
    reply = client.post(
        "/v1/embeddings/lookup", content=body, headers={"content-type": "application/json", "accept": ARROW}
    )
    assert pa.ipc.open_stream(reply.content).read_all().column("found").to_pylist()[2:4] == [True, True]


def test_names_are_looked_up_as_they_are_written(tmp_path: Path) -> None:
    names = [f"café-{row}" if row else "0" for row in range(20)]
    with client_of(service_with(counting_table(tmp_path / "t", rows=20, ids=names))) as client:
        reply = client.post("/v1/embeddings/lookup", json={"ids": ["café-7", 0, "cafe-7", ""]})
        assert reply.json()["found"] == [True, True, False, False]
        assert reply.json()["vectors"][0] == [7.0] * 4


def test_many_vectors_as_json_are_those_of_the_table(tmp_path: Path) -> None:
    table = counting_table(tmp_path / "t", rows=3000, dim=64)
    with client_of(service_with(table)) as client:
        ids = [*range(2999, -1, -1), 5000]
        reply = client.post("/v1/embeddings/lookup", json={"ids": ids}).json()
        assert reply["found"] == [True] * 3000 + [False]
        assert reply["vectors"][-1] is None
        assert [vector[63] for vector in reply["vectors"][:-1]] == ids[:-1]
        assert client.post("/v1/embeddings/lookup", json={"ids": []}).json()["vectors"] == []


def stream(
    values: Any, *names: str, metadata: dict[bytes, bytes] | None = None, options: pa.ipc.IpcWriteOptions | None = None
) -> bytes:
    """Return an Arrow stream with ``values`` below each of ``names``."""
    schema = pa.schema([(name, values.type) for name in names], metadata=metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=options) as writer:
        writer.write_batch(pa.record_batch([values] * len(names), schema=schema))
    return bytes(sink.getvalue())


ZSTD = pa.ipc.IpcWriteOptions(compression="zstd")


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (stream(pa.array(np.zeros(1_000_000, np.int64)), "id", options=ZSTD), 415, "without compression"),
        (stream(pa.array(["a" * 999]).dictionary_encode(), "id", options=ZSTD), 415, "without compression"),
        (stream(pa.nulls(101), "id"), 422, "the Arrow stream has 101 rows; at most 100"),
        (stream(pa.array([1]), "id", metadata={b"graphsys.version": b"\xff"}), 422, "graphsys.version is no text"),
        (stream(pa.array([1]), "id", "id"), 422, "send one column 'id'"),
        (stream(pa.array(["1"]).dictionary_encode(), "id"), 422, "ids are of type dictionary"),
        (stream(pa.array([1]), "idz").replace(b"idz", b"id\xff"), 400, "not an Arrow stream"),
        (stream(pa.array([1]), "id")[:-20], 400, "not an Arrow stream"),
    ],
)
def test_an_arrow_stream_that_cannot_be_answered_is_told_what_is_wrong(
    client: httpx.Client, body: bytes, status: int, says: str
) -> None:
    reply = client.post("/v1/embeddings/lookup", content=body, headers={"content-type": ARROW})
    assert (reply.status_code, says in reply.json()["detail"]) == (status, True), reply.text


def test_whatever_bytes_an_arrow_stream_holds_the_answer_is_no_bug(client: httpx.Client) -> None:
    whole = stream(pa.array(["1", "3", "abc"]).dictionary_encode(), "id")
    rng = np.random.default_rng(0)
    for _ in range(300):
        body = bytearray(whole)
        for place in rng.integers(0, len(body), 3):
            body[place] = rng.integers(256)
        reply = client.post("/v1/embeddings/lookup", content=bytes(body), headers={"content-type": ARROW})
        assert reply.status_code in (200, 400, 415, 422), reply.text


def test_a_body_in_a_content_coding_is_refused_by_its_name(client: httpx.Client) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    reply = client.post("/v1/embeddings/lookup", content=gzip.compress(b'{"ids": [1]}'), headers=headers)
    assert reply.status_code == 415
    assert "content-encoding is 'gzip'" in reply.json()["detail"]


def test_integers_in_arrow_are_looked_up_among_names(tmp_path: Path) -> None:
    table = counting_table(tmp_path, ids=[str(row * 10) for row in range(50)])
    with client_of(service_with(table)) as client:
        headers = {"content-type": ARROW, "accept": "application/json"}
        reply = client.post("/v1/embeddings/lookup", content=stream(pa.array([30, 31]), "id"), headers=headers)
        assert reply.json()["vectors"] == [[3.0] * 4, None]
