"""Nearest neighbours by id or by vector."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from graphsys.core.types import NodeIds
from graphsys.deploy.lookup import Metric
from graphsys.deploy.serving.id_rows import Id
from graphsys.deploy.serving.nearness import MISSING
from graphsys.deploy.serving.operations import described, direct_router
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.served_table import ServedTable
from graphsys.deploy.serving.service import Service, check_count, service_of
from graphsys.deploy.serving.vector_columns import Vectors, arrow_vectors
from graphsys.deploy.serving.wire import (
    VERSION_KEY,
    arrow_reply,
    first_flaw,
    is_arrow,
    json_reply,
    parse_json,
    read_arrow,
    wants_arrow,
)

router = direct_router(tags=["neighbours"])

SEARCH_KEY = "graphsys.search"  # of an Arrow request's metadata: the other fields of the JSON body
_NEIGHBOURS_PER_ID = 100  # that one reply may hold, for as many ids as a request may have


class SearchOptions(BaseModel):
    """How neighbours are searched."""

    model_config = ConfigDict(extra="forbid")

    k: int = Field(10, description="Neighbours wanted, at least 1.")
    metric: Metric | None = Field(
        None, description="cosine and dot: larger is nearer; l2: smaller is. The server's own when left out."
    )
    node_type: str | None = Field(None, description="Must be the table's node type; it has one.")
    include_self: bool = Field(False, description="Whether a queried node may be in its own answer.")
    exact: bool = Field(False, description="Compare with every vector, whatever index there is.")
    version: str | None = Field(None, description="The table that must answer; the active one when left out.")


class SearchBody(SearchOptions):
    """Whose neighbours are wanted: those of nodes or those of vectors."""

    ids: list[Id] | None = Field(None, description="External ids.")
    vectors: list[list[float]] | None = Field(None, description="Vectors of the table's dimension.")


class Neighbour(BaseModel):
    """One neighbour."""

    id: int | str
    score: float


class SearchReply(BaseModel):
    """Neighbours in the order of the ids or vectors."""

    version: str = Field(description="The table that answered.")
    metric: str
    found: list[bool] = Field(description="Whether the table holds the id; true for every vector.")
    neighbors: list[list[Neighbour]] = Field(description="Nearest first; empty where the id is unknown.")


@router.post("/v1/embeddings/search", **described(body=SearchBody, reply=SearchReply, arrow=True))
async def search(request: Request) -> Response:
    """The nearest neighbours of nodes or of vectors.

    An Arrow request has one column, `id` or `vector`, and the other fields as JSON in its metadata under
    `graphsys.search`; the reply has the columns `query` (a position), `id` and `score`.
    """
    service = service_of(request)
    ids, vectors, options = await _asked(request, service)
    num_queries = len(ids) if ids is not None else vectors.shape[0]
    check_count(num_queries, service, "ids or vectors")
    _check_k(options.k, num_queries, service)
    service.telemetry.observe_batch("search", num_queries)
    # The lease is taken in the thread: it must outlast the search, also where the request is given up.
    given_up = threading.Event()
    try:
        return await asyncio.to_thread(
            _answer, service, ids, vectors, options, given_up.is_set, as_arrow=wants_arrow(request)
        )
    finally:
        # A thread cannot be cancelled, and those that scan for nobody would keep others waiting.
        given_up.set()


def _check_k(k: int, num_queries: int, service: Service) -> None:
    most = service.settings.max_k
    if not 1 <= k <= most:
        raise Problem(422, f"k is {k}; ask for 1 to {most:,} neighbours")
    if k * num_queries > _NEIGHBOURS_PER_ID * service.settings.max_ids:
        raise Problem(
            422,
            f"{k} neighbours of {num_queries:,} queries are too many for one reply, which holds "
            f"{_NEIGHBOURS_PER_ID * service.settings.max_ids:,}; send several requests",
        )


async def _asked(request: Request, service: Service) -> tuple[Any, Vectors, SearchOptions]:
    """Return the ids, or None and the vectors, and the options."""
    none = np.empty((0, 0))
    if is_arrow(request):
        return await _asked_by_arrow(request, service, none)
    body = parse_json(await request.body(), SearchBody)
    if (body.ids is None) == (body.vectors is None):
        raise Problem(422, "give either ids or vectors")
    if body.vectors is None:
        return body.ids, none, body
    lengths = {len(vector) for vector in body.vectors}
    if len(lengths) > 1:
        raise Problem(
            422, f"vectors: they have {min(lengths)} to {max(lengths)} numbers; give all the table's dimension"
        )
    return None, np.array(body.vectors, np.float64).reshape(len(body.vectors), max(lengths, default=0)), body


async def _asked_by_arrow(request: Request, service: Service, none: Vectors) -> tuple[Any, Vectors, SearchOptions]:
    table = await read_arrow(request, service.settings.max_ids)
    said = (table.schema.metadata or {}).get(SEARCH_KEY.encode(), b"{}")
    try:
        options = SearchOptions.model_validate_json(said)
    except ValidationError as error:
        raise Problem(422, f"metadata {SEARCH_KEY}: {first_flaw(error, 'the JSON')}") from error
    if table.column_names == ["id"]:
        return table.column("id").combine_chunks(), none, options
    if table.column_names == ["vector"]:
        return None, arrow_vectors(table.column("vector"), "vector"), options
    raise Problem(422, f"the Arrow stream has columns {table.column_names}; send one column, 'id' or 'vector'")


def _answer(
    service: Service, ids: Any, vectors: Vectors, options: SearchOptions, stop: Callable[[], bool], *, as_arrow: bool
) -> Response:
    metric = options.metric or service.settings.metric
    with service.registry.lease(options.version) as table:
        if options.node_type not in (None, table.table.node_type):
            raise Problem(
                422, f"node_type is '{options.node_type}'; the table holds nodes of type '{table.table.node_type}'"
            )
        found, scores, nodes = _found(table, ids, vectors, options, metric, stop)
        reply = _as_arrow if as_arrow else _as_json
        return reply(table, metric, found, scores, nodes)


def _found(
    table: ServedTable, ids: Any, vectors: Vectors, options: SearchOptions, metric: Metric, stop: Callable[[], bool]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32], NodeIds]:
    """Return which queries are known [Q], and scores and nodes [known queries, k]."""
    if ids is None:
        if not vectors.shape[0]:  # no list says how long it would be
            vectors = np.empty((0, table.dim))
        scores, nodes = table.search.search(vectors, options.k, metric, exact=options.exact, stop=stop)
        return np.ones(vectors.shape[0], np.bool_), scores, nodes
    node, found = table.to_node(ids)
    known = node[found]
    exclude = None if options.include_self else known
    scores, nodes = table.search.search(
        table.vectors[known], options.k, metric, exclude, exact=options.exact, stop=stop
    )
    return found, scores, nodes


def _as_json(table: ServedTable, metric: Metric, found: Any, scores: Any, nodes: NodeIds) -> Response:
    held = nodes != MISSING
    pairs = list(zip(table.table.ids.to_external(nodes[held]), scores[held].tolist(), strict=True))
    ends = np.cumsum(held.sum(axis=1)).tolist()
    answers = iter(zip([0, *ends[:-1]], ends, strict=True))
    neighbors = []
    for hit in found.tolist():
        start, stop = next(answers) if hit else (0, 0)
        neighbors.append([{"id": name, "score": score} for name, score in pairs[start:stop]])
    return json_reply({"version": table.version, "metric": metric, "found": found, "neighbors": neighbors})


def _as_arrow(table: ServedTable, metric: Metric, found: Any, scores: Any, nodes: NodeIds) -> Response:
    held = nodes != MISSING
    query = np.repeat(np.flatnonzero(found), held.sum(axis=1)).astype(np.int32)
    kind = pa.string() if table.table.id_kind == "string" else pa.int64()
    columns = [pa.array(query), pa.array(table.table.ids.to_external(nodes[held]), kind), pa.array(scores[held])]
    fields = [pa.field("query", pa.int32()), pa.field("id", kind), pa.field("score", pa.float32())]
    told = {VERSION_KEY: table.version, "graphsys.metric": metric, "graphsys.num_queries": str(len(found))}
    return arrow_reply(pa.record_batch(columns, schema=pa.schema(fields, metadata=told)))
