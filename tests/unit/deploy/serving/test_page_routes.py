"""The page's files, the map and the places of nodes, as a browser asks for them."""

import gzip
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from helpers.labelled import clustered_table
from helpers.serving import client_of, counting_table, service_with

from graphsys.deploy.serving.map_body import MAGIC, MEDIA_TYPE
from graphsys.deploy.serving.page_assets import assets
from graphsys.deploy.serving.projection import MapSettings, compute_projection
from graphsys.storage.embeddings import EmbeddingTable

ROWS, CLASSES = 40, 3
HOSTILE = "<img src=x onerror=alert(1)>"
TYPES = {"f4": np.float32, "i4": np.int32, "u4": np.uint32, "u1": np.uint8, "i8": np.int64}
OPEN = ["/", "/favicon.ico", *(f"/page/{name}" for name in assets())]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbeddingTable, EmbeddingTable]:
    folder = tmp_path_factory.mktemp("tables")
    ids = [HOSTILE, "Ødegård", *(f"node {number}" for number in range(2, ROWS))]
    return (
        clustered_table(folder / "text", rows=ROWS, classes=CLASSES, ids=ids),
        counting_table(folder / "plain", rows=30),
    )


@pytest.fixture(scope="module")
def client(tables: tuple[EmbeddingTable, EmbeddingTable]) -> Iterator[httpx.Client]:
    with client_of(service_with(*tables, max_ids=100)) as opened:
        yield opened


def read_map(body: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    assert body[:8] == MAGIC
    length = int.from_bytes(body[8:12], "little")
    header = json.loads(body[16 : 16 + length])
    start = 16 + length
    assert start % 8 == 0
    columns = {
        column["name"]: np.frombuffer(body, TYPES[column["type"]], column["length"], start + column["offset"])
        for column in header["columns"]
    }
    return header, columns


def test_the_map_holds_places_classes_and_ids_of_all_points(
    client: httpx.Client, tables: tuple[EmbeddingTable, EmbeddingTable]
) -> None:
    table = tables[0]
    reply = client.get(f"/v1/tables/{table.version}/map")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == MEDIA_TYPE
    header, columns = read_map(reply.content)
    expected = compute_projection(table, MapSettings())
    assert np.array_equal(columns["x"], expected.xy[:, 0])
    assert np.array_equal(columns["y"], expected.xy[:, 1])
    assert columns["label"].tolist() == [-1 if row % 10 == 9 else row % CLASSES for row in range(ROWS)]
    text, offsets = columns["id_bytes"].tobytes(), columns["id_offsets"]
    ids = [text[start:stop].decode() for start, stop in pairwise(offsets)]
    assert ids[:2] == [HOSTILE, "Ødegård"]
    assert (header["num_points"], header["num_rows"], header["version"]) == (ROWS, ROWS, table.version)
    assert header["classes"] == ["class 0", "class 1", "class 2"]


def test_a_map_that_the_browser_has_is_not_sent_again(
    client: httpx.Client, tables: tuple[EmbeddingTable, EmbeddingTable]
) -> None:
    path = f"/v1/tables/{tables[0].version}/map"
    tag = client.get(path).headers["etag"]
    again = client.get(path, headers={"if-none-match": f'"other", W/{tag}'})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(path, headers={"if-none-match": '"other"'}).status_code == 200


def test_places_answer_unknown_ids_and_such_outside_the_sample(tmp_path: Path) -> None:
    table = clustered_table(tmp_path, rows=60, classes=CLASSES)
    with client_of(service_with(table, map_points=10)) as client:
        reply = client.post(f"/v1/tables/{table.version}/places", json={"ids": [4, "59", 1000, "x"]}).json()
        header, columns = read_map(client.get(f"/v1/tables/{table.version}/map").content)
    assert reply["found"] == [True, True, False, False]
    assert reply["label"] == [1, None, None, None]
    assert reply["x"][2:] == [None, None]
    projection = compute_projection(table, MapSettings(points=10))
    expected = projection.place(np.array([4, 59]), table.take(np.array([4, 59])))
    assert np.allclose(np.array([reply["x"][:2], reply["y"][:2]]).T, expected)
    assert header["num_points"] == 10
    assert np.array_equal(columns["id"], projection.node)


def test_a_table_without_its_run_has_a_map_without_classes(
    client: httpx.Client, tables: tuple[EmbeddingTable, EmbeddingTable]
) -> None:
    labelled, plain = tables
    assert client.post(f"/v1/tables/{plain.version}/activate").status_code == 200
    header, columns = read_map(client.get(f"/v1/tables/{plain.version}/map").content)
    places = client.post(f"/v1/tables/{plain.version}/places", json={"ids": [3]}).json()
    assert client.post(f"/v1/tables/{labelled.version}/activate").status_code == 200
    assert header["classes"] == []
    assert columns["id"].tolist() == list(range(30))
    assert (places["label"], places["classes"]) == ([None], [])


def test_a_listing_says_where_a_loaded_table_comes_from(
    client: httpx.Client, tables: tuple[EmbeddingTable, EmbeddingTable]
) -> None:
    listed = client.get("/v1/tables").json()["tables"][0]["provenance"]
    folder = tables[0].path.parent
    assert (listed["run"], listed["store"]) == (str(folder / "config.yaml"), str(folder / "graph.gs"))
    assert listed["written"].endswith("+00:00")


def test_without_a_map_the_answer_says_so(tables: tuple[EmbeddingTable, EmbeddingTable]) -> None:
    plain = tables[1]
    with client_of(service_with(plain, map_points=0)) as client:
        reply = client.get(f"/v1/tables/{plain.version}/map")
        places = client.post(f"/v1/tables/{plain.version}/places", json={"ids": [3]})
    assert reply.status_code == 404
    assert "map_points" in reply.json()["detail"]
    assert places.json()["x"] == [None]


@pytest.mark.parametrize(
    ("body", "status"), [({"ids": list(range(101))}, 422), ({"ids": [1.5]}, 422), ({}, 422), ({"ids": [], "a": 1}, 422)]
)
def test_bad_questions_for_places_are_refused(
    client: httpx.Client, tables: tuple[EmbeddingTable, EmbeddingTable], body: Any, status: int
) -> None:
    reply = client.post(f"/v1/tables/{tables[0].version}/places", json=body)
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/problem+json"


def test_an_unknown_version_has_neither_map_nor_places(client: httpx.Client) -> None:
    assert client.get("/v1/tables/none/map").status_code == 404
    assert client.post("/v1/tables/none/places", json={"ids": []}).status_code == 404


@pytest.mark.parametrize("path", OPEN)
def test_every_file_of_the_page_forbids_what_it_does_not_need(client: httpx.Client, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert ("'unsafe-eval'" in policy) == (path == "/page/plot.html")
    assert policy.startswith("sandbox") == (path == "/page/plot.html")
    assert reply.headers["x-content-type-options"] == "nosniff"
    again = client.get(path, headers={"if-none-match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_files_are_packed_for_those_who_can_unpack_them(client: httpx.Client) -> None:
    with client.stream("GET", "/page/plotly.min.js", headers={"accept-encoding": "gzip"}) as packed:
        raw = b"".join(packed.iter_raw())
    plain = client.get("/page/plotly.min.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert gzip.decompress(raw) == plain.content
    assert len(raw) < len(plain.content) / 2
    assert "immutable" in plain.headers["cache-control"]
    assert client.get("/").headers["cache-control"] == "no-cache"


def test_the_page_names_no_other_host_and_holds_no_script_or_style_of_its_own() -> None:
    for name, asset in assets().items():
        text = asset.body.decode()
        if name == "plotly.min.js":
            continue
        hosts = set(re.findall(r"(?:https?:)?//([a-z0-9-]+\.[a-z0-9.-]+)", text))
        assert hosts <= {"www.w3.org"}, name  # the name of SVG, which nobody asks
        if name.endswith(".html"):
            assert "<style" not in text
            assert " style=" not in text
            assert all(part.startswith((" src=", ' type="module" src=')) for part in text.split("<script")[1:])
            assert "{{" not in text


@pytest.mark.parametrize("path", ["/page/../settings.py", "/page/%2e%2e/settings.py", "/page/index", "/page/"])
def test_nothing_else_is_served_as_a_file(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


def test_with_a_token_the_page_is_open_and_its_data_are_not(
    tables: tuple[EmbeddingTable, EmbeddingTable], tmp_path: Path
) -> None:
    token = "a-token-of-good-length"
    (tmp_path / "token").write_text(token + "\n")
    plain = tables[1]
    with client_of(service_with(plain, token_file=tmp_path / "token")) as client:
        assert {client.get(path).status_code for path in OPEN} == {200}
        data = [f"/v1/tables/{plain.version}/map", "/v1/tables", "/metrics"]
        assert {client.get(path).status_code for path in data} == {401}
        allowed = {"authorization": f"Bearer {token}"}
        assert {client.get(path, headers=allowed).status_code for path in data} == {200}
