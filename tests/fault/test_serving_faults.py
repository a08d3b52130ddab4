"""Tables that break, vanish or change on disk while a server answers: the active one stays."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers.serving import client_of, constant_table, counting_table, service_with

LOOKUP = "/v1/embeddings/lookup"


@pytest.mark.parametrize("call", ["open", "preadv"])
@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_disk_call_that_fails_during_activation_leaves_the_active_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    service = service_with(counting_table(tmp_path / "a"), constant_table(tmp_path / "b", 7.0))
    first, second = (listing.version for listing in service.registry.listing())
    real, calls = getattr(os, call), 0

    def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number + 1:
            raise OSError(errno.EIO, "the device failed")
        return real(*arguments, **options)

    with client_of(service) as client:
        client.get("/health/live")
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            reply = client.post(f"/v1/tables/{second}/activate")
        if calls > number:  # the call was met
            assert reply.status_code == 503
            assert "input/output error" in reply.json()["detail"]
            assert client.post(LOOKUP, json={"ids": [3]}).json()["version"] == first
        assert client.post(f"/v1/tables/{second}/activate").status_code == 200
        assert client.post(LOOKUP, json={"ids": [3]}).json()["vectors"] == [[7.0] * 8]


def test_a_table_that_vanishes_is_answered_from_until_another_is_active(tmp_path: Path) -> None:
    here, gone = counting_table(tmp_path / "a"), constant_table(tmp_path / "b", 7.0)
    with client_of(service_with(here, gone)) as client:
        shutil.rmtree(here.path)
        shutil.rmtree(gone.path)
        reply = client.post(f"/v1/tables/{gone.version}/activate")
        assert reply.status_code == 409
        assert "does not exist" in reply.json()["detail"]
        assert client.post(LOOKUP, json={"ids": [3]}).json()["vectors"] == [[3.0] * 4]


@pytest.mark.parametrize("damage", ["manifest.json", "vectors/zarr.json", "vectors"])
def test_a_table_with_any_part_damaged_is_refused_and_named(tmp_path: Path, damage: str) -> None:
    good, bad = counting_table(tmp_path / "a"), constant_table(tmp_path / "b", 7.0)
    target = bad.vectors.path if damage == "vectors" else bad.path / damage
    with client_of(service_with(good, bad)) as client:
        target.write_bytes(target.read_bytes()[:-3])
        reply = client.post(f"/v1/tables/{bad.version}/activate")
        assert reply.status_code == 409
        assert str(bad.path) in reply.json()["detail"]
        assert client.get("/health/ready").status_code == 200
        assert client.post(LOOKUP, json={"ids": [3]}).json()["version"] == good.version
