import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from helpers.training import run_config

from graphsys.core.errors import ConfigError
from graphsys.deploy.jobs import submit


@contextmanager
def answering(answer: Any, status: int = 200) -> Iterator[str]:
    """Answer every request with the same JSON while the block runs; yield the address."""
    body = json.dumps(answer).encode()

    class Same(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET  # noqa: N815 - the server looks for these names

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("answer", [{"version": "1"}, ["a"], None])
def test_a_server_that_answers_json_but_is_no_job_server_is_refused(tmp_path: Path, answer: Any) -> None:
    with answering(answer) as address, pytest.raises(ConfigError, match="answers, but not as a Ray job server"):
        submit(run_config(Path("s.gs"), tmp_path / "out"), address, lambda _: None)


def test_a_server_that_takes_a_job_with_another_answer_than_rays_is_refused(tmp_path: Path) -> None:
    said = {"ray_version": "2.0", "ray_commit": "x", "version": "4", "session_name": "s"}
    with answering(said) as address, pytest.raises(ConfigError, match=r"refused the job: its answer has another form"):
        submit(run_config(Path("s.gs"), tmp_path / "out"), address, lambda _: None)


def test_a_cluster_that_asks_for_a_token_is_told_with_what_to_set(tmp_path: Path) -> None:
    said = "Unauthorized: Missing authentication token"
    with (
        answering(said, status=401) as address,
        pytest.raises(ConfigError, match=r"Missing authentication token.*\); set RAY_AUTH_MODE=token"),
    ):
        submit(run_config(Path("s.gs"), tmp_path / "out"), address, lambda _: None)
