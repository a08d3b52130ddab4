"""The same server on Ray Serve: several replicas, one token, one active table, and an end that leaves nothing."""

import socket
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from helpers.serving import constant_table, counting_table

from graphsys.deploy.serving.ray_app import Scale, make_plan, serve_on_ray
from graphsys.deploy.serving.settings import ServeSettings

WAIT_S = 60.0
TOKEN = "a-token-for-the-replicas"


@pytest.mark.timeout(180)
def test_every_replica_follows_an_activation_and_the_end_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAPHSYS_TOKEN", TOKEN)
    first, second = counting_table(tmp_path / "a"), constant_table(tmp_path / "b", 7.0)
    settings = ServeSettings(port=0, watch_s=0.1, drain_s=5)
    plan = make_plan([first.path, second.path], settings, Scale(min_replicas=2, max_replicas=2, cpus=0.5))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    answers: list[object] = []
    ports: list[int] = []

    def ask(url: str) -> None:
        with httpx.Client(base_url=url, timeout=WAIT_S) as stranger:
            answers.append(stranger.get("/v1/tables").status_code)
        with httpx.Client(base_url=url, timeout=WAIT_S, headers={"authorization": f"Bearer {TOKEN}"}) as client:
            answers.append(client.post("/v1/embeddings/lookup", json={"ids": [3]}).json()["vectors"])
            answers.append(client.post(f"/v1/tables/{second.version}/activate").json()["state"])
            end, same = time.monotonic() + WAIT_S, 0
            while same < 20 and time.monotonic() < end:
                reply = client.post("/v1/embeddings/lookup", json={"ids": [3]}).json()
                same = same + 1 if reply["version"] == second.version else 0
            answers.append(same)

    stopping = threading.Event()

    def ready(url: str) -> None:
        ports.append(int(url.rpartition(":")[2]))
        try:
            ask(url)
        finally:
            stopping.set()

    serve_on_ray(plan, stopping=stopping, on_ready=ready)
    assert answers == [401, [[3.0] * 4], "active", 20]
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert left == set()
    with socket.create_server(("127.0.0.1", ports[0])):
        pass
    by_chance = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]
    assert ports[0] < int(by_chance)  # no connection of Ray's own processes could take it before Serve did
