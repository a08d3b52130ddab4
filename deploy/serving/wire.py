"""Bodies both ways, by content type: JSON and streams of Arrow record batches."""

from typing import Any, TypeVar

import orjson
import pyarrow as pa
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from graphsys.deploy.serving.problems import Problem

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
VERSION_KEY = "graphsys.version"  # of an Arrow schema's metadata

Body = TypeVar("Body", bound=BaseModel)


def is_arrow(request: Request) -> bool:
    """Whether the request's body is an Arrow stream; a body must be that or JSON.

    Raises:
        Problem: 415, it is neither.
    """
    kind = media_type(request.headers.get("content-type", ""))
    if kind not in (JSON, ARROW):
        raise Problem(415, f"content-type is '{kind}'; send {JSON} or {ARROW}")
    return kind == ARROW


def wants_arrow(request: Request) -> bool:
    """Whether the reply shall be an Arrow stream: ``accept`` names it, or the body is one and ``accept`` is open."""
    accept = request.headers.get("accept", "*/*")
    if ARROW in accept:
        return True
    return JSON not in accept and media_type(request.headers.get("content-type", "")) == ARROW


def media_type(header: str) -> str:
    """Return a content type without its parameters."""
    return header.partition(";")[0].strip().lower()


async def read_json(request: Request, model: type[Body]) -> Body:
    """Return the request's JSON body as a ``model``.

    Raises:
        Problem: 400, it is not JSON; 422, a field is wrong; 415, it is declared as something else.
    """
    if media_type(request.headers.get("content-type", "")) != JSON:
        kind = media_type(request.headers.get("content-type", ""))
        raise Problem(415, f"content-type is '{kind}'; send {JSON}")
    return parse_json(await request.body(), model)


def parse_json(body: bytes, model: type[Body]) -> Body:
    """Return a JSON body as a ``model``; raises as :func:`read_json` does."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise Problem(400, f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}") from error
        place = ".".join(str(part) for part in first["loc"])
        shown = repr(first["input"])
        found = f" (found {shown[:60]}{'...' if len(shown) > 60 else ''})"
        raise Problem(422, f"{place or 'the body'}: {first['msg']}{found}") from error


async def read_arrow(request: Request) -> Any:
    """Return the request's Arrow stream as a pyarrow Table, its buffers in the body's memory.

    Raises:
        Problem: 400, it is not a whole Arrow stream.
    """
    body = await request.body()
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            table = reader.read_all()
            table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise Problem(400, f"the body is not an Arrow stream: {' '.join(str(error).split())[:200]}") from error
    return table


def json_reply(value: Any, status: int = 200) -> Response:
    """Return plain values and numpy arrays as JSON; numbers that are not finite become null."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type=JSON)


def arrow_reply(batch: Any) -> Response:
    """Return one pyarrow RecordBatch as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return Response(memoryview(sink.getvalue()), media_type=ARROW)
