"""New nodes and predictions over HTTP, as a client sees them."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from helpers.graphs import tiny_store
from helpers.serving import client_of, counting_table, service_with
from helpers.trained import make_run, train_nothing

from graphsys.core.errors import StaleArtefactError
from graphsys.deploy.serving.wire import ARROW
from graphsys.storage.embeddings import EmbeddingTable
from graphsys.storage.store import Store
from graphsys.trainers.embed import embed
from graphsys.trainers.run_folder import write_config

URL = "/v1/embeddings/infer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served")
    run = make_run(tiny_store(made), made / "run", model={"name": "gcn", "hidden": 8})
    train_nothing(run)
    write_config(run)
    embed(run)
    return made


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    service = service_with(EmbeddingTable.open(folder / "run" / "embeddings.gs"), max_edges=500)
    with client_of(service) as opened:
        yield opened


def as_new(folder: Path, *nodes: int) -> dict[str, Any]:
    """Return the request for stored nodes as if they were new."""
    store = Store.open(folder / "tiny.gs")
    topology = store.topology(store.edge_type_within("node"))
    known = [topology.indices[topology.indptr[node] : topology.indptr[node + 1]].tolist() for node in nodes]
    return {
        "x": store.features("node").read()[list(nodes)].tolist(),
        "edges": {
            "new": [place for place, row in enumerate(known) for _ in row],
            "known": [value for row in known for value in row],
        },
    }


def test_a_stored_node_taken_for_new_gets_its_stored_vector_and_prediction(client: httpx.Client, folder: Path) -> None:
    reply = client.post(URL, json={**as_new(folder, 3, 50), "predict": True})
    assert reply.status_code == 200, reply.text
    body = reply.json()
    stored = client.post("/v1/embeddings/lookup", json={"ids": [3, 50]}).json()
    np.testing.assert_allclose(body["vectors"], stored["vectors"], rtol=1e-5, atol=1e-5)
    said = client.post("/v1/predict", json={"ids": [3, 999, 50]}).json()
    assert said["found"] == [True, False, True]
    assert said["classes"] == body["classes"] == [0, 1, 2, 3]
    np.testing.assert_allclose(body["probabilities"], [said["probabilities"][0], said["probabilities"][2]], atol=1e-5)
    assert said["probabilities"][1] is None
    assert client.post(URL, json=as_new(folder, 3)).json()["probabilities"] is None


def test_many_at_once_get_each_their_own(client: httpx.Client, folder: Path) -> None:
    stored = client.post("/v1/embeddings/lookup", json={"ids": list(range(40))}).json()["vectors"]
    bodies = [as_new(folder, node) for node in range(40)]
    bodies[5] = {"x": [[0.0] * 7]}
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda body: client.post(URL, json=body), bodies))
    assert [reply.status_code for reply in replies] == [200 if node != 5 else 422 for node in range(40)]
    for node, reply in enumerate(replies):
        if node != 5:
            np.testing.assert_allclose(reply.json()["vectors"], [stored[node]], rtol=1e-5, atol=1e-5)


def test_arrow_has_a_row_per_new_node(client: httpx.Client, folder: Path) -> None:
    asked = as_new(folder, 3)
    schema = pa.schema(
        [pa.field("x", pa.list_(pa.float32(), 8)), pa.field("known", pa.list_(pa.int64()))],
        metadata={"graphsys.predict": "true"},
    )
    batch = pa.RecordBatch.from_arrays(
        [pa.array(asked["x"], pa.list_(pa.float32(), 8)), pa.array([asked["edges"]["known"]])], schema=schema
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    reply = client.post(URL, content=bytes(sink.getvalue()), headers={"content-type": ARROW})
    assert reply.status_code == 200, reply.text
    table = pa.ipc.open_stream(reply.content).read_all()
    expected = client.post(URL, json=asked).json()["vectors"]
    np.testing.assert_allclose(table.column("vector").to_pylist(), expected, rtol=1e-6)
    assert len(table.column("probabilities").to_pylist()[0]) == 4


def test_predictions_as_arrow_are_those_of_json(client: httpx.Client) -> None:
    sink = pa.BufferOutputStream()
    ids = pa.record_batch({"id": pa.array([3, 999, 50])})
    with pa.ipc.new_stream(sink, ids.schema) as writer:
        writer.write_batch(ids)
    reply = client.post("/v1/predict", content=bytes(sink.getvalue()), headers={"content-type": ARROW})
    assert reply.status_code == 200, reply.text
    table = pa.ipc.open_stream(reply.content).read_all()
    expected = client.post("/v1/predict", json={"ids": [3, 999, 50]}).json()
    assert table.column("found").to_pylist() == expected["found"] == [True, False, True]
    said = table.column("probabilities").to_pylist()
    assert said[1] is None
    np.testing.assert_allclose(
        [said[0], said[2]], [expected["probabilities"][0], expected["probabilities"][2]], rtol=1e-6
    )
    assert json.loads(table.schema.metadata[b"graphsys.classes"]) == expected["classes"]
    assert client.post("/v1/predict", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"x": []}, "x is empty"),
        ({"x": [[1.0] * 7]}, "a row has 7 numbers; the network takes 8 features"),
        ({"x": [[1.0] * 8], "edges": {"new": [0], "known": [777]}}, "the table has no node 777"),
        ({"x": [[1.0] * 8], "edges": {"new": [0], "known": [2**70]}}, "the table has no node"),
        ({"x": [[1.0] * 8], "edges": {"new": [1], "known": [0]}}, "an edge names new node 1; the request has 1"),
        ({"x": [[1.0] * 8], "new_edges": {"source": [0], "target": [-1]}}, "an edge names new node -1"),
        ({"x": [[1.0] * 8], "edges": {"new": [0, 0], "known": [0]}}, "new has 2 entries and known has 1"),
        ({"x": [[1.0] * 8], "edges": {"new": [0] * 501, "known": [0] * 501}}, "501 edges; at most 500"),
        ({"x": [[1e300] * 8]}, "new node 0 has inf as feature 0"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(client: httpx.Client, body: dict[str, Any], says: str) -> None:
    reply = client.post(URL, json=body)
    assert reply.status_code == 422, reply.text
    assert says in reply.json()["detail"]


def test_without_a_network_the_answer_says_what_to_do(tmp_path: Path) -> None:
    with client_of(service_with(counting_table(tmp_path / "t"))) as alone:
        for url, body in ((URL, {"x": [[1.0]]}), ("/v1/predict", {"ids": [1]})):
            reply = alone.post(url, json=body)
            assert reply.status_code == 409, reply.text
            assert "--run RUN.yaml" in reply.json()["detail"]


def test_a_run_that_did_not_make_the_table_is_refused_when_it_is_named(folder: Path, tmp_path: Path) -> None:
    run = make_run(folder / "tiny.gs", tmp_path / "other")
    train_nothing(run, seed=3)
    write_config(run)
    with pytest.raises(StaleArtefactError, match="was made from another checkpoint"):
        service_with(EmbeddingTable.open(folder / "run" / "embeddings.gs"), run=str(tmp_path / "other" / "config.yaml"))


def test_a_damaged_run_beside_a_table_costs_its_predictions_only(folder: Path, tmp_path: Path) -> None:
    run = make_run(folder / "tiny.gs", tmp_path / "run", model={"name": "gcn", "hidden": 8})
    train_nothing(run)
    write_config(run)
    table = embed(run).table
    train_nothing(run, seed=7, step=2)
    with client_of(service_with(table)) as client:
        assert client.post("/v1/embeddings/lookup", json={"ids": [1]}).status_code == 200
        reply = client.post("/v1/predict", json={"ids": [1]})
        assert reply.status_code == 409
        assert "another checkpoint" in reply.json()["detail"]


ONE = pa.array([[0.0] * 8])


@pytest.mark.parametrize(
    ("columns", "names", "metadata", "says"),
    [
        ([ONE, ONE], ["x", "x"], None, "columns ['x', 'x']"),
        ([ONE, pa.array([[True]])], ["x", "known"], None, "something that is no id"),
        ([ONE, pa.array([[None]], pa.list_(pa.int64()))], ["x", "known"], None, "something that is no id"),
        ([ONE, pa.array([1])], ["x", "known"], None, "no list in every row"),
        ([ONE, pa.ListArray.from_arrays([0, 1], pa.array(["1"]).dictionary_encode())], ["x", "known"], None, "no id"),
        ([ONE], ["x"], {b"graphsys.predict": b"\xff"}, "metadata graphsys.predict is no text"),
        ([pa.array([], pa.list_(pa.float32()))], ["x"], None, "x is empty"),
        ([pa.array([[np.nan] * 8])], ["x"], None, "new node 0 has nan"),
    ],
)
def test_a_wrong_arrow_request_is_told_what_is_wrong(
    client: httpx.Client, columns: list[Any], names: list[str], metadata: dict[bytes, bytes] | None, says: str
) -> None:
    table = pa.table(columns, names=names).replace_schema_metadata(metadata)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    reply = client.post(URL, content=bytes(sink.getvalue()), headers={"content-type": ARROW})
    assert (reply.status_code, says in reply.json()["detail"]) == (422, True), reply.text
