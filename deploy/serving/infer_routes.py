"""Vectors and predictions of new nodes, and predictions for known ones."""

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from graphsys.deploy.serving.batching import Batcher, BatchLimits
from graphsys.deploy.serving.id_rows import IdsBody, arrow_rows_reply, asked_ids
from graphsys.deploy.serving.infer_body import InferBody, asked_nodes, check_edges, resolved
from graphsys.deploy.serving.operations import described, direct_router
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.served_table import ServedTable
from graphsys.deploy.serving.service import Service, check_count, service_of
from graphsys.deploy.serving.vector_columns import vector_column
from graphsys.deploy.serving.wire import VERSION_KEY, arrow_reply, json_reply, wants_arrow

if TYPE_CHECKING:
    from graphsys.trainers.inductive import InductiveModel, Inferred
    from graphsys.trainers.new_nodes import NewNodes

router = direct_router(tags=["inference"])

CLASSES_KEY = "graphsys.classes"  # of an Arrow reply's metadata: what the columns of probabilities are, as JSON


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
    body = await asked_nodes(request, service.settings.max_ids)
    check_count(len(body.x), service, "new nodes")
    if not body.x:
        raise Problem(422, "x is empty; give the features of at least one new node")
    check_edges(body, service.settings.max_edges)
    with service.registry.lease(body.version) as table:
        model = model_of(table)
        nodes = await asyncio.to_thread(resolved, body, table, model)
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
