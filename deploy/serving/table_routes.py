"""Look-up by id, and the tables themselves."""

import asyncio
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from graphsys.deploy.serving.id_rows import IdsBody, arrow_rows_reply, asked_ids
from graphsys.deploy.serving.operations import described, direct_router
from graphsys.deploy.serving.registry import TableListing
from graphsys.deploy.serving.service import Service, check_count, service_of
from graphsys.deploy.serving.wire import VERSION_KEY, Mask, json_reply, json_rows_reply, wants_arrow

router = direct_router(tags=["tables"])

QUICK_NUMBERS = 1 << 18  # gathered from memory in less time than it takes to hand the work to a thread twice


class LookupReply(BaseModel):
    """Vectors in the order of the ids."""

    version: str = Field(description="The table that answered.")
    dim: int = Field(description="Numbers per vector.")
    found: list[bool] = Field(description="Whether the table holds the id.")
    vectors: list[list[float | None] | None] = Field(
        description="One vector per id; null where the id is unknown, and for a number that is not finite."
    )


class TableReply(BaseModel):
    """One known table."""

    version: str
    path: str
    state: str = Field(description="known, loading, active, retiring or refused.")
    dim: int
    num_rows: int
    node_type: str
    dtype: str
    provenance: dict[str, Any] = Field(description="What the table was made from, by fingerprint.")
    error: Annotated[str | None, Field(description="Why it was refused when it was last loaded.")]


class TablesReply(BaseModel):
    """All known tables."""

    active: str | None = Field(description="Version of the active one.")
    tables: list[TableReply]


@router.post("/v1/embeddings/lookup", **described(body=IdsBody, reply=LookupReply, arrow=True))
async def lookup(request: Request) -> Response:
    """Vectors by id, for up to thousands of ids; an unknown id is no error."""
    service = service_of(request)
    ids, version = await asked_ids(request, service.settings.max_ids)
    check_count(len(ids), service, "ids")
    service.telemetry.observe_batch("lookup", len(ids))
    look_up = partial(_look_up, service, ids, version)
    with service.registry.lease(version) as table:
        quick = table.resident and len(ids) * table.dim <= QUICK_NUMBERS
    vectors, found, answered = look_up() if quick else await asyncio.to_thread(look_up)
    if wants_arrow(request):
        return arrow_rows_reply(ids, found, "vector", vectors, {VERSION_KEY: answered})
    fields = {"version": answered, "dim": vectors.shape[1], "found": found}
    return await json_rows_reply(fields, "vectors", vectors, found)


def _look_up(service: Service, ids: Any, version: str | None) -> tuple[npt.NDArray[np.float32], Mask, str]:
    # The lease is taken where the work is done: a request that is given up may leave its thread working.
    with service.registry.lease(version) as table:
        return *table.lookup(ids), table.version


@router.get("/v1/tables", **described(reply=TablesReply))
async def tables(request: Request) -> Response:
    """Which tables are known, and which one is active."""
    registry = service_of(request).registry
    return json_reply({"active": registry.active, "tables": [plain(listing) for listing in registry.listing()]})


@router.post(
    "/v1/tables/{version}/activate",
    **described(reply=TableReply, path_parameters={"version": "Version of a known table."}),
)
async def activate(request: Request) -> Response:
    """Load a known table and make it the active one, between two requests; on failure the active one stays."""
    registry = service_of(request).registry
    version = request.path_params["version"]
    await asyncio.to_thread(registry.activate, version)
    return json_reply(next(plain(listing) for listing in registry.listing() if listing.version == version))


def plain(listing: TableListing) -> dict[str, Any]:
    """Return a listing as plain JSON values."""
    return {**asdict(listing), "path": str(listing.path)}
