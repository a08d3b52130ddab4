"""Training under Ray, from the command line: on a cluster of its own, and on one that runs."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.gang import Gang
from helpers.graphs import tiny_store

from graphsys.cli.main import main
from graphsys.core.config import RunConfig, parse_run
from graphsys.core.machine import cores
from graphsys.samplers.schedule import Schedule
from graphsys.storage.store import Store
from graphsys.trainers.budget import train_schedule
from graphsys.trainers.checkpoint import final_checkpoint

LIMIT_S = 240


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def gang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gang]:
    with closing(Gang(tmp_path_factory.mktemp("gang"))) as started:
        yield started


def write_run(path: Path, store: Path, **sections: Any) -> tuple[Path, RunConfig]:
    tree: dict[str, Any] = {
        "store": str(store),
        "out": str(path.with_suffix("")),
        "memory": "64MiB",
        "sampler": {"fanouts": [3, 2], "batch_size": 16},
        "model": {"hidden": 8},
        "trainer": {"epochs": 2, "threads": 1, "device": "cpu"},
        "cluster": {"num_workers": 2, "timeout": 60, "dashboard": False},
    }
    for name, section in sections.items():
        tree[name] = {**tree.get(name, {}), **section}
    path.write_text(yaml.safe_dump(tree))
    return path, parse_run(tree)


def graphsys(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "graphsys.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        timeout=LIMIT_S,
        check=False,
    )


class Silent(BaseHTTPRequestHandler):
    """Refuses every request, and writes no log."""

    def log_message(self, *_: Any) -> None:
        pass


def schedule_of(run: RunConfig) -> Schedule:
    return train_schedule(run, Store.open(run.store).split("node", "train"))


def state_bytes(run: RunConfig) -> bytes:
    return (final_checkpoint(run.out) / "state.pt").read_bytes()


def test_a_worker_killed_in_the_middle_of_an_epoch_is_replaced_and_the_weights_end_the_same(
    store: Path, gang: Gang, tmp_path: Path
) -> None:
    def described(name: str, moments: list[int]) -> tuple[Path, RunConfig]:
        kwargs = {"folder": str(tmp_path), "moments": moments}
        model = {"class": "helpers.dying:Dying", "kwargs": kwargs}
        trainer = {"epochs": 2, "checkpoint_every": 3}
        cluster = {"dashboard": True}
        return write_run(tmp_path / f"{name}.yaml", store, model=model, trainer=trainer, cluster=cluster)

    _, whole = described("whole", [])
    assert gang.train(whole, 2) == [0, 0]
    # The first seed of the third batch of the second epoch, which the leader takes.
    moments = [int(schedule_of(whole).seeds(7 + 2).node[0])]
    path, killed = described("killed", moments)
    done = graphsys("train", str(path), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {file.name for file in tmp_path.glob("died-*")} == {f"died-{seed}" for seed in moments}
    assert state_bytes(killed) == state_bytes(whole)
    result = json.loads(done.stdout)
    assert result["epochs"] == 2
    assert set(result["test"]) == {"loss", "accuracy", "macro_f1"}
    assert result["stages"]["train"]["seconds"] > 0
    assert "a worker was lost; start 2, from the newest checkpoint" in done.stderr
    assert "going on from batch 6 of 14" in done.stderr
    assert "epoch 2: loss" in done.stderr
    assert "Ray dashboard: http://127.0.0.1:" in done.stderr
    assert "until this training ends, its token is " in done.stderr
    assert not (killed.out / "cluster").exists()
    # While it trained, no other machine could reach Ray's servers.
    listened = (tmp_path / f"died-{moments[0]}").read_text().split()
    assert {address.removeprefix("::ffff:") for address in listened} == {"127.0.0.1"}


@pytest.fixture(scope="module")
def head() -> Iterator[dict[str, str]]:
    """Start a Ray head as a user does, and end it by its process id; yields the addresses of cluster and jobs."""
    port, dashboard, agent = free_port(), free_port(), free_port()  # another Ray here may have Ray's own ports
    folder = Path(tempfile.mkdtemp(prefix="gs-ray-"))  # the names of Ray's sockets must be short
    binaries = Path(sys.executable).parent
    path = os.pathsep.join([str(binaries), os.environ["PATH"]])
    started = subprocess.Popen(
        [
            binaries / "ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats",
            "--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={folder}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
        ],
        env={**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )  # fmt: skip
    try:
        jobs = f"http://127.0.0.1:{dashboard}"
        wait_for(f"{jobs}/api/version")
        yield {"cluster": f"127.0.0.1:{port}", "jobs": jobs}
    finally:
        started.terminate()
        try:
            started.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody listens at, outside the range that Ray gives to its workers."""
    for port in range(20000 + os.getpid() % 9000, 30000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _GIVEN:
                _GIVEN.add(port)
                return port
    raise RuntimeError("no port is free")


_GIVEN: set[int] = set()


def wait_for(url: str) -> None:
    for _ in range(240):
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.5)
    raise TimeoutError(f"{url} does not answer")


def test_a_submitted_run_trains_on_the_cluster_and_reports_its_result(
    head: dict[str, str], store: Path, tmp_path: Path
) -> None:
    kwargs = {"folder": str(tmp_path), "moments": []}
    path, run = write_run(tmp_path / "run.yaml", store, model={"class": "helpers.dying:Dying", "kwargs": kwargs})
    sent = ("submit", str(path), "--address", head["jobs"])
    done = graphsys(*sent, "--json", cwd=tmp_path, RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["status"], answer["exit_code"]) == ("SUCCEEDED", 0)
    assert answer["result"]["checkpoint"] == str(final_checkpoint(run.out))
    assert "epoch 2: loss" in done.stderr
    # Another model in the same folder is the run's own refusal; the job's exit code comes back.
    refused = graphsys(*sent, "--set", "model.kwargs.moments=[1]", cwd=tmp_path, RAY_AUTH_MODE="disabled")
    assert refused.returncode == 2
    assert "was made by another run" in refused.stdout


def test_a_pipeline_of_one_process_on_a_cluster_reports_its_result(
    head: dict[str, str], store: Path, tmp_path: Path
) -> None:
    model = {"name": "gcnii", "hidden": 8, "num_layers": 3}
    path, run = write_run(
        tmp_path / "run.yaml",
        store,
        model=model,
        trainer={"strategy": "pipeline"},
        cluster={"address": head["cluster"], "num_workers": 1},
    )
    done = graphsys("train", str(path), "--json", cwd=tmp_path, RAY_AUTH_MODE="disabled")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["checkpoint"] == str(final_checkpoint(run.out))
    assert answer["stages"]["train"]["seconds"] > 0
    assert answer["pipeline"]["rows"]


def test_a_training_whose_workers_are_lost_too_often_ends_with_one_sentence(
    head: dict[str, str], store: Path, tmp_path: Path
) -> None:
    path, run = write_run(tmp_path / "plain.yaml", store)
    moments = [int(schedule_of(run).seeds(3).node[0])]
    model = {"class": "helpers.dying:Dying", "kwargs": {"folder": str(tmp_path), "moments": moments}}
    cluster = {"address": head["cluster"], "max_failures": 0}
    path, run = write_run(tmp_path / "run.yaml", store, model=model, cluster=cluster)
    done = graphsys("train", str(path), cwd=tmp_path, RAY_AUTH_MODE="disabled")
    assert done.returncode == 1
    assert "training broke off with a lost worker, after 0 of 0 new starts (cluster.max_failures)" in done.stderr
    assert "Traceback" not in done.stderr


def test_more_workers_than_cpus_are_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cpus = cores()
    path, run = write_run(tmp_path / "run.yaml", store, cluster={"num_workers": 7, "threads": cpus})
    assert main(["train", str(path), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert f"cluster.num_workers is 7, each with {cpus} CPU" in said
    assert f"this machine has {cpus} in all" in said
    assert not run.out.exists()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:9", "does not answer (Connection refused)"),
        ("ray://127.0.0.1:9", "does not answer (Connection refused)"),
        ("head", "names no host and port"),
        ("head:x", "names no host and port"),
        ("[::1:6379", "names no host and port"),
    ],
)
def test_a_cluster_that_cannot_be_reached_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, why: str
) -> None:
    path, _ = write_run(tmp_path / "run.yaml", store, cluster={"address": address})
    assert main(["train", str(path), "--quiet"]) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_server_that_is_no_ray_cluster_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], scheme: str
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"{scheme}127.0.0.1:{server.server_port}"
            path, _ = write_run(tmp_path / "run.yaml", store, cluster={"address": address})
            assert main(["train", str(path), "--quiet"]) == 2
        finally:
            server.shutdown()
            thread.join()
    assert f"cluster.address {address} answers, but not as a Ray cluster" in capsys.readouterr().err


def test_windows_are_not_made_ahead_for_several_workers(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = write_run(tmp_path / "run.yaml", store)
    assert main(["pack", str(path), "--quiet"]) == 2
    assert "cluster.num_workers is 2, and windows made ahead serve one process" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "submit needs --address"),
        (["--address", "127.0.0.1:8265"], "give the job server's, such as http://127.0.0.1:8265"),
        (["--address", "http://127.0.0.1:9"], "--address http://127.0.0.1:9 does not answer (Connection refused)"),
        (["--address", "http://[::1"], "--address is 'http://[::1', which names no host and port"),
        (["--address", "http://127.0.0.1:9", "--wheel", "none.whl"], "--wheel none.whl is no wheel of graphsys"),
        (["--address", "http://127.0.0.1:9", "--code", "s3://b/c.zip"], "--code goes with --emit-k8s"),
        (["--emit-k8s", "--image=me/g:1", "--wheel=g.whl"], "--wheel sends a job now"),
        (["--emit-k8s"], "--emit-k8s needs --image"),
        (["--emit-k8s", "--image=me/g:1", "--code=mine.zip"], "pods fetch it themselves"),
        (["--emit-k8s", "--image=me/g:1", "--volume=data"], "write it as claim:/path"),
    ],
)
def test_a_run_that_cannot_be_submitted_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], why: str
) -> None:
    path, _ = write_run(tmp_path / "run.yaml", store)
    assert main(["submit", str(path), *arguments]) == 2
    assert why in capsys.readouterr().err


def test_a_manifest_without_a_volume_says_what_the_image_must_hold(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, run = write_run(tmp_path / "run.yaml", store)
    assert main(["submit", str(path), "--emit-k8s", "--image=me/g:1"]) == 0
    printed = capsys.readouterr()
    assert yaml.safe_load(printed.out)["kind"] == "RayJob"
    assert f"no --volume is given, so the image itself must hold {run.store}" in printed.err
