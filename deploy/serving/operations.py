"""Routes that FastAPI describes but does not stand in front of.

FastAPI finds out the arguments of a handler for every request, which costs more than a look-up. A handler here takes
the request and returns the response; what it reads and answers is declared beside it, and checked by the same models.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from graphsys.deploy.serving.problems import MEDIA_TYPE, ProblemBody
from graphsys.deploy.serving.wire import ARROW, JSON

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_REFUSALS = {
    400: "The body is malformed.",
    401: "The token is missing, wrong or expired.",
    404: "There is no such table, or it is not loaded.",
    408: "The body did not arrive in time.",
    409: "The table or the model does not allow it.",
    413: "The body is too large.",
    415: "The content type is neither JSON nor an Arrow stream.",
    422: "A field is wrong, or beyond a limit.",
    429: "Too many requests are under way.",
    503: "No table is active yet, or the work took too long.",
}
_WITH_BODY = (400, 401, 404, 408, 409, 413, 415, 422, 429, 503)
_WITHOUT_BODY = (401, 404, 408, 409, 413, 429, 503)
_ARROW_SCHEMA = {"type": "string", "format": "binary"}


class DirectRoute(APIRoute):
    """A described route whose handler is called with the request, and nothing in between."""

    def get_route_handler(self) -> Handler:
        """Return the handler itself."""
        handler: Handler = self.endpoint
        return handler


def direct_router(**options: Any) -> APIRouter:
    """Return a router of :class:`DirectRoute`."""
    return APIRouter(route_class=DirectRoute, **options)


def direct_routes(routers: Iterable[APIRouter]) -> dict[tuple[str, str], DirectRoute]:
    """Return the routes whose paths hold no parameters, by method and path."""
    routes = [route for router in routers for route in router.routes]
    return {
        (method, route.path): route
        for route in routes
        if isinstance(route, DirectRoute) and not route.param_convertors
        for method in route.methods or ()
    }


def described(
    *,
    reply: type[BaseModel],
    body: type[BaseModel] | None = None,
    arrow: bool = False,
    path_parameters: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return what a route's decorator takes to describe its bodies: ``@router.post(path, **described(...))``.

    Args:
        reply: What a request that succeeds is told.
        body: What a request must say; None: it has no body.
        arrow: Body and reply may be Arrow streams too.
        path_parameters: Name of each -> what it means.
    """
    content = {JSON: {"schema": inlined(reply, "serialization")}}
    if arrow:
        content[ARROW] = {"schema": _ARROW_SCHEMA}
    responses: dict[int | str, dict[str, Any]] = {200: {"description": "Done.", "content": content}}
    problem = {MEDIA_TYPE: {"schema": inlined(ProblemBody, "serialization")}}
    for status in _WITHOUT_BODY if body is None else _WITH_BODY:
        responses[status] = {"description": _REFUSALS[status], "content": problem}
    extra: dict[str, Any] = {}
    if body is not None:
        accepted = {JSON: {"schema": inlined(body, "validation")}}
        extra["requestBody"] = {
            "required": True,
            "content": {**accepted, **({ARROW: {"schema": _ARROW_SCHEMA}} if arrow else {})},
        }
    if path_parameters:
        extra["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": meaning}
            for name, meaning in path_parameters.items()
        ]
    return {"responses": responses, "openapi_extra": extra, "response_class": Response}


def inlined(model: type[BaseModel], mode: Any) -> dict[str, Any]:
    """Return a model's JSON schema with every definition in its place, so that it may stand anywhere in a document."""
    schema = model.model_json_schema(mode=mode)
    definitions = schema.pop("$defs", {})
    return {key: _without_refs(value, definitions) for key, value in schema.items()}


def _without_refs(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if "$ref" in value:
            return _without_refs(definitions[value["$ref"].rpartition("/")[2]], definitions)
        return {key: _without_refs(item, definitions) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_refs(item, definitions) for item in value]
    return value
