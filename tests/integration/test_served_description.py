"""The OpenAPI description is exact: requests made from it, right and wrong ones, are answered as it says."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from helpers.serving import client_of, constant_table, counting_table, service_with
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(
    os.environ.get("GRAPHSYS_SERVED_EXAMPLES", "25")
)  # per operation and mode; $GRAPHSYS_SERVED_EXAMPLES asks for more


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("tables")
    service = service_with(counting_table(folder / "a"), constant_table(folder / "b", 1.0), max_ids=50)
    with client_of(service) as opened:
        yield opened


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["right", "wrong"])
def test_requests_made_from_the_description_are_answered_as_it_says(client: httpx.Client, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    asked = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        if mode is GenerationMode.NEGATIVE and "requestBody" not in operation.definition.raw:
            continue  # there is nothing to get wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            database=None,
            derandomize=True,
        )
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            response = case.call(base_url=str(client.base_url))
            case.validate_response(response, checks=CHECKS)

        ask()
    assert asked >= EXAMPLES
    assert client.post("/v1/embeddings/lookup", json={"ids": [1]}).status_code == 200
