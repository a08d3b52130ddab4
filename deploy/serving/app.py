"""The HTTP application: all routes, and what stands around each of them."""

import logging

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

import graphsys
from graphsys.core.errors import GraphsysError
from graphsys.deploy.serving import health_routes, table_routes
from graphsys.deploy.serving.gate import Gate
from graphsys.deploy.serving.problems import Problem, as_problem
from graphsys.deploy.serving.service import Service

_LOG = logging.getLogger(__name__)


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
    for router in (table_routes.router, health_routes.router):
        app.include_router(router)
    app.add_exception_handler(Problem, _refused)
    app.add_exception_handler(GraphsysError, _refused)
    app.add_exception_handler(HTTPException, _not_routed)
    app.add_exception_handler(Exception, _bug)
    app.add_middleware(Gate, service=service)
    return app


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, GraphsysError):
        return as_problem(error).response()
    assert isinstance(error, Problem)
    return error.response()


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = {
        404: f"there is nothing at {request.url.path}; /docs lists what there is",
        405: f"{request.method} is not for {request.url.path}; /docs lists what there is",
    }.get(error.status_code, error.detail)
    return Problem(error.status_code, detail, headers=error.headers).response()


async def _bug(request: Request, error: Exception) -> Response:
    _LOG.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return Problem(500, "this is a bug in graphsys; the server's log says more").response()
