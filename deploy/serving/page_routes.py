"""The page at ``/``, its files, and the map it draws."""

import asyncio
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from graphsys.deploy.serving.id_rows import Id
from graphsys.deploy.serving.map_body import MEDIA_TYPE, MapBody
from graphsys.deploy.serving.operations import described, direct_router
from graphsys.deploy.serving.page_assets import HEADERS, Asset, assets
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.served_table import ServedTable
from graphsys.deploy.serving.service import check_count, service_of
from graphsys.deploy.serving.wire import json_reply, read_json

pages = APIRouter(include_in_schema=False)
router = direct_router(tags=["map"])

_VERSION = {"version": "Version of a loaded table."}


@pages.get("/")
async def page(request: Request) -> Response:
    """The page for people."""
    return await _file(request, "index.html")


@pages.get("/page/{name}")
async def page_file(request: Request, name: str) -> Response:
    """A file of the page."""
    return await _file(request, name)


@pages.get("/favicon.ico")
async def icon(request: Request) -> Response:
    """The page's picture, for browsers that ask here for one."""
    return await _file(request, "icon.svg")


async def _file(request: Request, name: str) -> Response:
    asset = (await asyncio.to_thread(assets)).get(name)
    if asset is None:
        raise Problem(404, "the page has no such file; /docs lists what there is")
    headers = {**HEADERS, "Content-Security-Policy": asset.policy, "ETag": asset.etag}
    headers |= {"Cache-Control": asset.keep, "Vary": "Accept-Encoding"}
    if _is_known(request, asset.etag):
        return Response(status_code=304, headers=headers)
    return _sent(request, asset, headers)


def _sent(request: Request, asset: Asset, headers: dict[str, str]) -> Response:
    if asset.packed is not None and "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.body, headers=headers, media_type=asset.media_type)


def _is_known(request: Request, etag: str) -> bool:
    tags = request.headers.get("if-none-match", "").split(",")
    return any(tag.strip().removeprefix("W/") == etag for tag in tags)


class PlacesBody(BaseModel):
    """Whose places are wanted."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Id] = Field(description="External ids.")


class PlacesReply(BaseModel):
    """Places on the map, in the order of the ids."""

    version: str
    found: list[bool] = Field(description="Whether the table holds the id.")
    x: list[float | None] = Field(description="Null where the node has no place.")
    y: list[float | None]
    label: list[int | None] = Field(description="Class of the node; null where none is known.")
    classes: list[str] = Field(description="Name of class 0, 1, ...")


def _described_map() -> dict[str, Any]:
    options = described(reply=PlacesReply, path_parameters=_VERSION)
    options["responses"][200] = {
        "description": "The points as columns; graphsys.deploy.serving.map_body has the layout.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
    options["responses"][304] = {"description": "The client has it already."}
    return options


@router.get("/v1/tables/{version}/map", **_described_map())
async def table_map(request: Request) -> Response:
    """The 2-D map of a table, for drawing."""
    with service_of(request).registry.lease(request.path_params["version"]) as table:
        body = _map_of(table)
    headers = {"ETag": body.etag, "Cache-Control": "private, no-cache"}
    if _is_known(request, body.etag):
        return Response(status_code=304, headers=headers)
    return Response(body.body, headers=headers, media_type=MEDIA_TYPE)


def _map_of(table: ServedTable) -> MapBody:
    if table.map_body is None:
        raise Problem(404, "tables are served without a map here; start the server with map_points above 0")
    return table.map_body


@router.post("/v1/tables/{version}/places", **described(body=PlacesBody, reply=PlacesReply, path_parameters=_VERSION))
async def places(request: Request) -> Response:
    """Places and classes of nodes, also of such that the map leaves out; an unknown id is no error."""
    service = service_of(request)
    ids = (await read_json(request, PlacesBody)).ids
    check_count(len(ids), service, "ids")
    with service.registry.lease(request.path_params["version"]) as table:
        node, found = table.to_node(ids)
        xy, labels, names = await asyncio.to_thread(_placed, table, node[found])
        version = table.version
    return json_reply(
        {
            "version": version,
            "found": found,
            "x": _spread(xy[:, 0], found),
            "y": _spread(xy[:, 1], found),
            "label": [value if value >= 0 else None for value in _spread(labels, found, missing=-1).tolist()],
            "classes": names,
        }
    )


def _placed(
    table: ServedTable, node: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], tuple[str, ...]]:
    if table.projection is None:
        xy = np.full((node.shape[0], 2), np.nan, np.float32)
    else:
        xy = table.projection.place(node, table.vectors[node])
    if table.classes is None:
        return xy, np.full(node.shape[0], -1, np.int32), ()
    return xy, table.classes.of(node), table.classes.names


def _spread(values: npt.NDArray[Any], found: npt.NDArray[np.bool_], missing: float = np.nan) -> npt.NDArray[Any]:
    """Return ``values`` at the places where ``found`` is true."""
    spread = np.full(found.shape[0], missing, values.dtype)
    spread[found] = values
    return spread
