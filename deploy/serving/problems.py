"""What a refused request is told: ``application/problem+json`` after RFC 9457."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from pydantic import BaseModel, Field
from starlette.responses import Response

from graphsys.core.errors import (
    ArtefactError,
    ConfigError,
    DiskError,
    GraphsysError,
    InputError,
    MemoryBudgetError,
    NodeIdError,
)

MEDIA_TYPE = "application/problem+json"

# The first class that an error belongs to decides.
_STATUS: tuple[tuple[type[GraphsysError], int], ...] = (
    (InputError, 422),
    (NodeIdError, 422),
    (ConfigError, 422),
    (ArtefactError, 409),
    (MemoryBudgetError, 503),
    (DiskError, 503),
)


class Problem(Exception):  # noqa: N818 - the RFC's word
    """A request that is refused, and why.

    Args:
        status: HTTP status.
        detail: One or two sentences: what was found, what was expected, the next step.
        headers: Further headers of the answer, such as ``Retry-After``.
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.title = HTTPStatus(status).phrase
        self.detail = detail
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """Return the JSON body."""
        return orjson.dumps({"type": "about:blank", "title": self.title, "status": self.status, "detail": self.detail})

    def response(self) -> Response:
        """Return the whole answer."""
        return Response(self.body(), self.status, self.headers, MEDIA_TYPE)


class ProblemBody(BaseModel):
    """What a refused request is told (RFC 9457)."""

    type: str = Field(description="Always about:blank: the status says what kind of problem it is.")
    title: str = Field(description="The kind of problem in a few words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was found, what was expected, and the next step.")


def as_problem(error: GraphsysError) -> Problem:
    """Return the problem that an error of graphsys is to the one who asked."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return Problem(status, str(error))
