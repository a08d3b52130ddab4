"""Bodies both ways, by content type: JSON and streams of Arrow record batches."""

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from graphsys.deploy.serving.ipc_messages import is_compressed
from graphsys.deploy.serving.problems import Problem

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
VERSION_KEY = "graphsys.version"  # of an Arrow schema's metadata

BLOCK_NUMBERS = 8_192  # written as JSON at a time, in about 0.4 ms
_END_BYTES = 8  # of the mark at the end of an Arrow stream

Mask = npt.NDArray[np.bool_]
Body = TypeVar("Body", bound=BaseModel)


def is_arrow(request: Request) -> bool:
    """Whether the request's body is an Arrow stream; a body must be that or JSON.

    Raises:
        Problem: 415, it is neither.
    """
    return _body_type(request, (JSON, ARROW)) == ARROW


def _body_type(request: Request, allowed: tuple[str, ...]) -> str:
    """Return the content type of a body, which must be one of ``allowed`` and sent as it is."""
    kind = media_type(request.headers.get("content-type", ""))
    if kind not in allowed:
        raise Problem(415, f"content-type is '{kind}'; send {' or '.join(allowed)}")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise Problem(415, f"content-encoding is '{coding}'; send the body as it is, not compressed")
    return kind


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
    _body_type(request, (JSON,))
    return parse_json(await request.body(), model)


def parse_json(body: bytes, model: type[Body]) -> Body:
    """Return a JSON body as a ``model``; raises as :func:`read_json` does."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = _details(error)
        if first["type"] == "json_invalid":
            raise Problem(400, f"the body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}") from error
        raise Problem(422, first_flaw(error, "the body")) from error


def first_flaw(error: ValidationError, whole: str) -> str:
    """Return what a model refused first: the field, or ``whole`` where it is no single one, why, and what was found."""
    first = _details(error)
    place = ".".join(str(part) for part in first["loc"])
    shown = repr(first["input"])
    return f"{place or whole}: {first['msg']} (found {shown[:60]}{'...' if len(shown) > 60 else ''})"


def _details(error: ValidationError) -> "ErrorDetails":
    return error.errors(include_url=False, include_context=False)[0]


async def read_arrow(request: Request, most_rows: int) -> Any:
    """Return the request's Arrow stream as a pyarrow Table, its buffers in the body's memory.

    Raises:
        Problem: 400, it is not a whole Arrow stream; 415, it is compressed; 422, it has more than ``most_rows``.
    """
    body = pa.py_buffer(await request.body())
    try:
        # A few kilobytes may unfold to more than there is memory.
        if is_compressed(body):
            raise Problem(415, "the buffers of the Arrow stream are compressed; write it without compression")
        with pa.ipc.open_stream(body) as reader:
            table = reader.read_all()
        if table.num_rows > most_rows:
            raise Problem(
                422, f"the Arrow stream has {table.num_rows:,} rows; at most {most_rows:,} are answered at once"
            )
        table.validate(full=True)
    # pyarrow's names and messages are bytes of the body, which need not be text.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Problem(400, f"the body is not an Arrow stream: {' '.join(str(error).split())[:200]}") from error
    return table


def metadata_text(table: Any, key: str) -> str | None:
    """Return what the schema's metadata holds under ``key``; None: nothing.

    Raises:
        Problem: 422, it is no text.
    """
    raw: bytes | None = (table.schema.metadata or {}).get(key.encode())
    try:
        return None if raw is None else raw.decode()
    except UnicodeDecodeError as error:
        raise Problem(422, f"metadata {key} is no text: {error.reason} at byte {error.start}") from error


def json_reply(value: Any, status: int = 200) -> Response:
    """Return plain values and numpy arrays as JSON; numbers that are not finite become null."""
    return Response(json_bytes(value), status, media_type=JSON)


async def json_rows_reply(fields: dict[str, Any], name: str, rows: npt.NDArray[Any], known: Mask) -> Response:
    """Return ``fields`` and below ``name`` one list per row, null where not ``known``.

    Numbers are written in blocks, and other requests get their turn in between: a reply of millions of numbers takes
    the interpreter for tenths of a second.

    Args:
        fields: Plain values and numpy arrays.
        name: Key of the rows.
        rows: [Q, D] numbers.
        known: [Q].
    """
    parts: list[bytes | memoryview] = [json_bytes({**fields, name: []})[:-2]]
    step = max(1, BLOCK_NUMBERS // max(1, rows.shape[1]))
    for start in range(0, rows.shape[0], step):
        if start:
            parts.append(b",")
            await asyncio.sleep(0)
        parts.append(_json_block(rows[start : start + step], known[start : start + step]))
    parts.append(b"]}")
    return Response(b"".join(parts), media_type=JSON)


def _json_block(rows: npt.NDArray[Any], known: Mask) -> memoryview:
    if known.all():
        return memoryview(json_bytes(rows))[1:-1]
    return memoryview(json_bytes([row if hit else None for row, hit in zip(rows, known, strict=True)]))[1:-1]


def json_bytes(value: Any) -> bytes:
    """Return plain values and numpy arrays as JSON; numbers that are not finite become null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def arrow_reply(batch: Any) -> Response:
    """Return one pyarrow RecordBatch as an Arrow stream, copied once."""
    size = batch.schema.serialize().size + pa.ipc.get_record_batch_size(batch) + _END_BYTES
    buffer = pa.allocate_buffer(size)
    sink = pa.FixedSizeBufferWriter(buffer)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return Response(memoryview(buffer)[: sink.tell()], media_type=ARROW)
