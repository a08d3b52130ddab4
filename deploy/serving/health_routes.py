"""Whether the process lives, whether it can answer, and what it counted."""

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from graphsys.deploy.serving.operations import described, direct_router
from graphsys.deploy.serving.service import service_of
from graphsys.deploy.serving.telemetry import CONTENT_TYPE
from graphsys.deploy.serving.wire import json_reply

router = direct_router(tags=["health"])


class HealthReply(BaseModel):
    """One word."""

    status: str


@router.get("/health/live", **described(reply=HealthReply))
async def live(request: Request) -> Response:  # noqa: ARG001 - every handler takes the request
    """Whether the process answers at all."""
    return json_reply({"status": "live"})


@router.get("/health/ready", **described(reply=HealthReply))
async def ready(request: Request) -> Response:
    """Whether a table is active; 503 before."""
    with service_of(request).registry.lease():
        return json_reply({"status": "ready"})


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """What was counted, as text for Prometheus."""
    return Response(service_of(request).telemetry.render(), media_type=CONTENT_TYPE)
