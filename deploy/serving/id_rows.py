"""Requests that name nodes by id, and replies with a row of numbers for each: JSON or Arrow."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr
from starlette.requests import Request
from starlette.responses import Response

from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.vector_columns import vector_column
from graphsys.deploy.serving.wire import (
    VERSION_KEY,
    Mask,
    arrow_reply,
    is_arrow,
    metadata_text,
    parse_json,
    read_arrow,
)

Id = StrictInt | StrictStr


class IdsBody(BaseModel):
    """Which nodes are asked about."""

    model_config = ConfigDict(extra="forbid")

    ids: list[Id] = Field(description="External ids: integers or strings, as the graph was imported with.")
    version: str | None = Field(None, description="The table that must answer; the active one when left out.")


async def asked_ids(request: Request, most: int) -> tuple[Any, str | None]:
    """Return the ids of a request, a list or a pyarrow array, and the version that must answer.

    Args:
        most: Ids that an Arrow stream may hold; a longer one is not read further.

    Raises:
        Problem: 400, 415 or 422, as the body is malformed.
    """
    if not is_arrow(request):
        body = parse_json(await request.body(), IdsBody)
        return body.ids, body.version
    table = await read_arrow(request, most)
    if table.column_names != ["id"]:
        raise Problem(422, f"the Arrow stream has columns {table.column_names}; send one column 'id'")
    return table.column("id").combine_chunks(), metadata_text(table, VERSION_KEY)


def arrow_rows_reply(
    ids: Any, found: Mask, name: str, rows: npt.NDArray[np.float32], metadata: Mapping[str, str]
) -> Response:
    """Return columns ``id``, ``found`` and ``name``, the last one ``rows`` [Q, D], null where not found."""
    column = ids if isinstance(ids, pa.Array) else _id_column(ids)
    held = vector_column(rows, found)
    fields = [pa.field("id", column.type), pa.field("found", pa.bool_()), pa.field(name, held.type)]
    schema = pa.schema(fields, metadata=dict(metadata))
    return arrow_reply(pa.record_batch([column, pa.array(found), held], schema=schema))


def _id_column(ids: list[int | str]) -> Any:
    try:
        return pa.array(ids)
    except (pa.ArrowException, OverflowError):  # integers and strings side by side, or an integer beyond int64
        return pa.array([str(value) for value in ids])
