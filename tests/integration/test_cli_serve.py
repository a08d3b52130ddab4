"""`graphsys serve` as a process: what it says, how it ends, what it refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
import yaml
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from helpers.refusals import assert_refused
from helpers.serving import WAIT_S, counting_table

from graphsys.cli.main import main
from graphsys.client import Client
from graphsys.core.progress import SilentProgress, Task
from graphsys.deploy.serving.server import Ready, serve
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.storage.embeddings import EmbeddingTable


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingTable:
    return counting_table(tmp_path_factory.mktemp("table"))


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [sys.executable, "-m", "graphsys.cli", "serve", *arguments, "--port", "0", "--json", "--quiet"]
    env = {**os.environ, **environment}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate(timeout=WAIT_S)


def test_a_served_table_answers_until_sigterm_and_the_process_ends_well(table: EmbeddingTable) -> None:
    token = "a-long-enough-token"
    with serving(str(table.path), "--access-log", GRAPHSYS_TOKEN=token) as (process, ready):
        assert ready["version"] == table.version
        headers = {"authorization": f"Bearer {token}"}
        reply = httpx.post(f"{ready['url']}/v1/embeddings/lookup", json={"ids": [3]}, headers=headers, timeout=WAIT_S)
        assert reply.json()["vectors"] == [[3.0] * 4]
        assert httpx.get(f"{ready['url']}/v1/tables", timeout=WAIT_S).status_code == 401
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0
        assert out == ""
        lines = [json.loads(line) for line in err.splitlines()]
        assert [(line["path"], line["status"]) for line in lines] == [
            ("/v1/embeddings/lookup", 200),
            ("/v1/tables", 401),
        ]
        assert token not in err


def test_arrow_flight_is_served_beside_http_and_ends_with_it(table: EmbeddingTable) -> None:
    with serving(str(table.path), "--flight-port", "0") as (process, ready):
        with Client(ready["url"], flight=ready["flight"]) as client:
            assert client.lookup([3]).vectors.tolist() == client.download().vectors[3:4].tolist() == [[3.0] * 4]
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=WAIT_S)
        assert process.returncode == 0


STRAY: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "replicas without Ray": (["--replicas=2"], ("--replicas", "--ray or --emit-k8s")),
    "an address without Ray": (["--address=auto"], ("--address", "--ray")),
    "an image without a manifest": (["--ray", "--image=a"], ("--image", "--emit-k8s")),
    "a manifest without an image": (["--emit-k8s"], ("--image", "me/graphsys:1")),
    "fewer than the fewest": (["--ray", "--replicas=3", "--max-replicas=2"], ("--max-replicas is 2", "3")),
    "both ways": (["--ray", "--emit-k8s"], ("--ray serves now",)),
    "Flight on Ray": (["--ray", "--flight-port=0"], ("--flight-port is not for --ray",)),
    "pods without memory": (["--emit-k8s", "--image=a", "--pod-memory=much"], ("much",)),
    "no target": (["--ray", "--target-requests=0"], ("--target-requests is 0",)),
}


@pytest.mark.parametrize(("options", "names"), STRAY.values(), ids=STRAY)
def test_options_of_another_way_to_serve_are_refused(
    options: list[str], names: tuple[str, ...], table: EmbeddingTable, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(["serve", str(table.path), *options], names=names, work=table.path.parent, capsys=capsys)


def test_a_manifest_is_printed_and_nothing_is_served(capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "serve",
        "/data/emb.gs",
        "--emit-k8s",
        "--image",
        "me/graphsys:1",
        "--max-replicas",
        "3",
        "--set",
        "max_k=7",
    ]
    assert main(argv) == 0
    tree = yaml.safe_load(capsys.readouterr().out)
    assert tree["kind"] == "RayService"
    assert yaml.safe_load(tree["spec"]["serveConfigV2"])["applications"][0]["args"]["settings"]["max_k"] == 7


def test_a_server_can_start_with_an_empty_folder_and_wait(tmp_path: Path, table: EmbeddingTable) -> None:
    options = ("--watch", str(tmp_path), "--activate-on-arrival", "--set", "watch_s=0.05")
    with serving(*options) as (_, ready):
        assert ready["version"] is None
        assert httpx.get(f"{ready['url']}/health/ready", timeout=WAIT_S).status_code == 503
        arrived = counting_table(tmp_path / ".building", rows=20)
        arrived.path.rename(tmp_path / "new.gs")
        with httpx.Client(base_url=ready["url"], timeout=WAIT_S) as client:
            deadline = time.monotonic() + WAIT_S
            while client.get("/health/ready").status_code != 200:
                assert time.monotonic() < deadline, "the table that arrived was not activated"
                time.sleep(0.02)
            assert client.get("/v1/tables").json()["active"] == arrived.version != table.version


def test_a_server_that_is_stopped_while_it_loads_ends_well(tmp_path: Path) -> None:
    class Slowly(SilentProgress):
        """Stops the server at the first step of loading."""

        def start(self, title: str, total: float | None, unit: str) -> Task:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.3)  # the loop's own thread hears of it meanwhile
            return super().start(title, total, unit)

    ready: list[Ready] = []
    serve([counting_table(tmp_path).path], ServeSettings(port=0), progress=Slowly(), on_ready=ready.append)
    assert ready == []


def test_a_port_that_is_taken_is_refused_in_one_sentence(
    table: EmbeddingTable, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert_refused(
            ["serve", str(table.path), "--port", port],
            names=(f"127.0.0.1:{port}", "Address already in use", "--port"),
            work=table.path,
            capsys=capsys,
        )


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["missing.gs"], ("missing.gs does not exist",)),
        (["x" * 300], ("cannot read xxx", "File name too long")),
        ([], ("nothing to serve", "--watch")),
        (["{table}", "--host", "0.0.0.0"], ("--host 0.0.0.0", "--token-file", "--insecure")),
        (["{table}", "--host", "no.such.host.invalid"], ("no.such.host.invalid",)),
        (["{table}", "--tls-cert", "cert.pem"], ("both --tls-cert and --tls-key",)),
        (["{table}", "--token-file", "missing"], ("cannot read missing",)),
        (["{table}", "--set", "max_idz=3"], ("unknown key 'max_idz'", "did you mean 'max_ids'?")),
        (["{table}", "--set", "max_ids=0"], ("max_ids is 0",)),
        (["{table}", "--activate-on-arrival"], ("--watch",)),
        (["--watch", "missing"], ("--watch missing is no folder",)),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_sentence(
    arguments: list[str], names: tuple[str, ...], table: EmbeddingTable, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["serve", "--port", "0", *(part.format(table=table.path) for part in arguments)]
    assert_refused(argv, names=names, work=table.path, capsys=capsys)


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(
    table: EmbeddingTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = trustme.CA().issue_cert("localhost")
    key = load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    (tmp_path / "key.pem").write_bytes(locked)
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    argv = ["serve", str(table.path), f"--tls-cert={tmp_path / 'cert.pem'}", f"--tls-key={tmp_path / 'key.pem'}"]
    assert_refused(argv, names=("key.pem is locked by a passphrase",), work=tmp_path, capsys=capsys)


def test_a_damaged_table_is_refused_with_its_chunk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = counting_table(tmp_path)
    raw = bytearray(table.vectors.path.read_bytes())
    raw[17] ^= 4
    table.vectors.path.write_bytes(raw)
    assert_refused(
        ["serve", str(table.path), "--port", "0", "-q"], names=("chunk 0 is corrupt",), work=tmp_path, capsys=capsys
    )
