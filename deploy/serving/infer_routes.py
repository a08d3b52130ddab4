"""Vectors and predictions of new nodes, and predictions for known ones."""

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from starlette.requests import Request
from starlette.responses import Response

from graphsys.core.types import NodeIds
from graphsys.deploy.serving.batching import Batcher, BatchLimits
from graphsys.deploy.serving.id_rows import Id, IdsBody, arrow_rows_reply, asked_ids
from graphsys.deploy.serving.operations import described, direct_router
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.search_routes import arrow_vectors, is_list
from graphsys.deploy.serving.served_table import ServedTable
from graphsys.deploy.serving.service import Service, check_count, service_of
from graphsys.deploy.serving.wire import (
    VERSION_KEY,
    arrow_reply,
    is_arrow,
    json_reply,
    metadata_text,
    parse_json,
    read_arrow,
    vector_column,
    wants_arrow,
)

if TYPE_CHECKING:
    from graphsys.trainers.inductive import InductiveModel, Inferred
    from graphsys.trainers.new_nodes import NewNodes

router = direct_router(tags=["inference"])

PREDICT_KEY = "graphsys.predict"  # of an Arrow request's metadata: true or false
CLASSES_KEY = "graphsys.classes"  # of an Arrow reply's metadata: what the columns of probabilities are, as JSON


class KnownEdges(BaseModel):
    """Edges from known nodes to new ones, as two lists of one length."""

    model_config = ConfigDict(extra="forbid")

    new: list[StrictInt] = Field(description="Place of the new node in `x`, from 0.")
    known: list[Id] = Field(description="External id of the known node whose message it gets.")


class NewEdges(BaseModel):
    """Edges among the new nodes, as two lists of one length."""

    model_config = ConfigDict(extra="forbid")

    source: list[StrictInt] = Field(description="Place in `x` of the node that sends a message.")
    target: list[StrictInt] = Field(description="Place in `x` of the node that gets it.")


class InferBody(BaseModel):
    """New nodes: their features, and their in-edges."""

    model_config = ConfigDict(extra="forbid")

    x: list[list[float]] = Field(description="Features of the new nodes, as the store holds those of known ones.")
    edges: KnownEdges | None = Field(None, description="Edges from known nodes.")
    new_edges: NewEdges | None = Field(None, description="Edges among the new nodes.")
    predict: bool = Field(False, description="Whether predictions are wanted too.")
    version: str | None = Field(None, description="The table that must answer; the active one when left out.")


class InferReply(BaseModel):
    """Vectors of the new nodes, comparable with the table's."""

    version: str = Field(description="The table that answered.")
    dim: int
    vectors: list[list[float | None]]
    probabilities: list[list[float | None]] | None = Field(
        description="By node; values in a regression; null if not asked for."
    )
    classes: list[int | str] = Field(description="What the columns of probabilities are.")


class PredictReply(BaseModel):
    """What the trained network says of known nodes."""

    version: str = Field(description="The table that answered.")
    found: list[bool] = Field(description="Whether the table holds the id.")
    probabilities: list[list[float | None] | None] = Field(description="By node; null where the id is unknown.")
    classes: list[int | str] = Field(description="What the columns of probabilities are.")


@router.post("/v1/embeddings/infer", **described(body=InferBody, reply=InferReply, arrow=True))
async def infer(request: Request) -> Response:
    """Vectors of nodes that came after the training, from their features and edges.

    An Arrow request has a row per new node: `x`, a list of numbers, and `known`, a list of ids that may be left out.
    Its reply names the classes in its metadata, as JSON, under `graphsys.classes`.
    """
    service = service_of(request)
    body = await _asked(request, service)
    check_count(len(body.x), service, "new nodes")
    if not body.x:
        raise Problem(422, "x is empty; give the features of at least one new node")
    _check_edges(body, service)
    with service.registry.lease(body.version) as table:
        model = model_of(table)
        nodes = await asyncio.to_thread(_resolved, body, table, model)
        batcher: Batcher[tuple[NewNodes, bool], Inferred] = request.app.state.batcher
        within_s = service.settings.request_time_s
        answer = await batcher.submit(table.version, (nodes, body.predict), size=nodes.num_nodes, within_s=within_s)
        classes, version = class_names(model), table.version
    return _inferred(answer, classes, version, as_arrow=wants_arrow(request))


def infer_batcher(service: Service) -> "Batcher[tuple[NewNodes, bool], Inferred]":
    """Return what puts the new nodes of several requests together."""

    def work(version: str, items: Sequence["tuple[NewNodes, bool]"]) -> list["Inferred"]:
        from graphsys.trainers.new_nodes import together

        # A lease of its own: a request that is given up must not close the table under the network's feet.
        with service.registry.lease(version) as table:
            model = model_of(table)
            nodes = [item[0] for item in items]
            inferred = model.infer(together(nodes), predict=any(predict for _, predict in items))
        return inferred.split([part.num_nodes for part in nodes], [predict for _, predict in items])

    settings = service.settings
    limits = BatchLimits(size=settings.infer_batch, delay_s=settings.infer_delay_s, waiting=settings.max_waiting)
    return Batcher(work, limits, observe=lambda size: service.telemetry.observe_batch("infer", size))


def model_of(table: ServedTable) -> "InductiveModel":
    """Return the network behind a table.

    Raises:
        Problem: 409, there is none.
    """
    if table.model is None:
        raise Problem(409, f"there is no network behind this table: {table.no_model}")
    return table.model


def class_names(model: "InductiveModel") -> list[int | str]:
    """Return what the columns of the model's predictions are: names of classes, or their numbers."""
    return list(model.classes) or list(range(model.num_outputs))


def _check_edges(body: InferBody, service: Service) -> None:
    pairs: list[tuple[str, str, list[int], str, Sequence[Any]]] = []
    if body.edges is not None:
        pairs.append(("edges", "new", body.edges.new, "known", body.edges.known))
    if body.new_edges is not None:
        pairs.append(("new_edges", "source", body.new_edges.source, "target", body.new_edges.target))
    for name, first, starts, second, ends in pairs:
        if len(starts) != len(ends):
            raise Problem(
                422,
                f"{name}: {first} has {len(starts)} entries and {second} has {len(ends)}; give one of each per edge",
            )
    num_edges = sum(len(pair[2]) for pair in pairs)
    if num_edges > service.settings.max_edges:
        raise Problem(422, f"the request has {num_edges:,} edges; at most {service.settings.max_edges:,} are taken")
    places = [*(body.edges.new if body.edges else ()), *_ends(body)]
    wrong = next((place for place in places if not 0 <= place < len(body.x)), None)
    if wrong is not None:
        raise Problem(422, f"an edge names new node {wrong}; the request has {len(body.x)}, counted from 0")


def _ends(body: InferBody) -> list[int]:
    return [] if body.new_edges is None else [*body.new_edges.source, *body.new_edges.target]


def _resolved(body: InferBody, table: ServedTable, model: "InductiveModel") -> "NewNodes":
    from graphsys.trainers.new_nodes import NewNodes

    lengths = {len(row) for row in body.x}
    if lengths - {model.num_features}:
        wrong = next(iter(lengths - {model.num_features}))
        raise Problem(422, f"x: a row has {wrong} numbers; the network takes {model.num_features} features")
    known = _known(table, body.edges.known) if body.edges else np.empty(0, np.int64)
    with np.errstate(over="ignore"):  # what lies beyond float32 is refused below, as infinite
        x = np.array(body.x, np.float32).reshape(len(body.x), model.num_features)
    nodes = NewNodes(
        x=x,
        new=np.array(body.edges.new if body.edges else [], np.int64),
        known=known,
        source=np.array(body.new_edges.source if body.new_edges else [], np.int64),
        target=np.array(body.new_edges.target if body.new_edges else [], np.int64),
    )
    model.check(nodes)
    return nodes


def _known(table: ServedTable, ids: list[Any]) -> NodeIds:
    node, found = table.to_node(ids)
    if not found.all():
        raise Problem(422, f"edges.known: the table has no node {ids[int(np.argmin(found))]!r}")
    return node


async def _asked(request: Request, service: Service) -> InferBody:
    if is_arrow(request):
        return _by_arrow(await read_arrow(request, service.settings.max_ids))
    return parse_json(await request.body(), InferBody)


def _by_arrow(table: Any) -> InferBody:
    if sorted(table.column_names) not in (["x"], ["known", "x"]):
        raise Problem(422, f"the Arrow stream has columns {table.column_names}; send 'x' and, if it has edges, 'known'")
    x = arrow_vectors(table.column("x"), "x").tolist()
    edges = _by_lists(table.column("known").combine_chunks()) if "known" in table.column_names else None
    predict = (metadata_text(table, PREDICT_KEY) or "").lower() == "true"
    return InferBody(x=x, edges=edges, predict=predict, version=metadata_text(table, VERSION_KEY))


def _by_lists(lists: Any) -> KnownEdges:
    """Return the edges of a column with the known in-neighbours of every new node."""
    if not is_list(lists.type) or lists.null_count:
        raise Problem(422, "column 'known' is no list in every row; give an empty one where there is no edge")
    ids, kind = lists.flatten(), lists.type.value_type
    is_id = pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    if ids.null_count or (len(ids) and not is_id):
        raise Problem(422, "column 'known' holds something that is no id; give integers or strings")
    new = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy(zero_copy_only=False))
    return KnownEdges(new=new.tolist(), known=ids.to_pylist())


def _inferred(answer: "Inferred", classes: list[int | str], version: str, *, as_arrow: bool) -> Response:
    vectors, said = answer.vectors, answer.predictions
    if not as_arrow:
        told = {"version": version, "dim": vectors.shape[1], "vectors": vectors, "probabilities": said}
        return json_reply({**told, "classes": classes})
    columns = {"vector": vector_column(vectors)}
    if said is not None:
        columns["probabilities"] = vector_column(said)
    batch = pa.RecordBatch.from_pydict(columns)
    return arrow_reply(batch.replace_schema_metadata(_told(version, classes)))


@router.post("/v1/predict", **described(body=IdsBody, reply=PredictReply, arrow=True))
async def predict(request: Request) -> Response:
    """What the trained network says of known nodes: probabilities of classes or labels, or values.

    An Arrow reply has the columns `id`, `found` and `probabilities`, and in its metadata the classes, as JSON, under
    `graphsys.classes`.
    """
    service = service_of(request)
    ids, version = await asked_ids(request, service.settings.max_ids)
    check_count(len(ids), service, "ids")
    service.telemetry.observe_batch("predict", len(ids))
    return await asyncio.to_thread(_predicted, service, ids, version, as_arrow=wants_arrow(request))


def _predicted(service: Service, ids: Any, version: str | None, *, as_arrow: bool) -> Response:
    with service.registry.lease(version) as table:
        model = model_of(table)
        node, found = table.to_node(ids)
        said = np.zeros((len(found), model.num_outputs), np.float32)
        said[found] = model.predict(node[found])
        answered, classes = table.version, class_names(model)
    if as_arrow:
        return arrow_rows_reply(ids, found, "probabilities", said, _told(answered, classes))
    rows = [row if hit else None for row, hit in zip(said, found, strict=True)]
    return json_reply({"version": answered, "found": found, "probabilities": rows, "classes": classes})


def _told(version: str, classes: list[int | str]) -> dict[str, str]:
    return {VERSION_KEY: version, CLASSES_KEY: json.dumps(classes)}
