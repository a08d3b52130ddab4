"""The HTTP application: all routes, and what stands around each of them."""

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import graphsys
from graphsys.deploy.serving import health_routes, infer_routes, page_routes, search_routes, table_routes
from graphsys.deploy.serving.docs_page import docs_page
from graphsys.deploy.serving.gate import OPEN_PATHS, Gate
from graphsys.deploy.serving.operations import direct_routes
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.service import Service

_STYLE_ONLY = "default-src 'none'; style-src 'unsafe-inline'"


def make_app(service: Service) -> FastAPI:
    """Return the application that answers from ``service``."""
    app = FastAPI(
        title="graphsys",
        version=graphsys.__version__,
        description="Vectors, neighbours and predictions of the nodes of a graph.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.state.batcher = infer_routes.infer_batcher(service)
    app.add_route("/docs", _docs)
    served = [routes.router for routes in (table_routes, health_routes, search_routes, infer_routes, page_routes)]
    for router in (*served, page_routes.pages):
        app.include_router(router)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_middleware(Gate, service=service, direct=direct_routes(served))
    if service.tokens.required:
        _describe_token(app)
    return app


def _describe_token(app: FastAPI) -> None:
    description = app.openapi()  # kept by the application, and answered from then on
    description.setdefault("components", {})["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, methods in description["paths"].items():
        for operation in methods.values():
            operation["security"] = [] if path in OPEN_PATHS else [{"token": []}]


async def _docs(request: Request) -> Response:
    app: FastAPI = request.app
    return HTMLResponse(docs_page(app.openapi()), headers={"Content-Security-Policy": _STYLE_ONLY})


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {
        404: f"there is nothing at {request.url.path}; /docs lists what there is",
        405: f"{request.method} is not for {request.url.path}; /docs lists what there is",
    }.get(error.status_code, error.detail)
    return Problem(error.status_code, detail, headers=error.headers).response()
