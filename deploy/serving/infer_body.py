"""New nodes in a request: their features and in-edges, read, checked, and with the ids of known nodes looked up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, StrictInt
from starlette.requests import Request

from graphsys.core.types import NodeIds
from graphsys.deploy.serving.id_rows import Id
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.served_table import ServedTable
from graphsys.deploy.serving.vector_columns import arrow_vectors, is_list
from graphsys.deploy.serving.wire import VERSION_KEY, is_arrow, metadata_text, parse_json, read_arrow

if TYPE_CHECKING:
    from graphsys.trainers.inductive import InductiveModel
    from graphsys.trainers.new_nodes import NewNodes

PREDICT_KEY = "graphsys.predict"  # of an Arrow request's metadata: true or false


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


async def asked_nodes(request: Request, most: int) -> InferBody:
    """Return what a request asks about new nodes; its edges are not checked yet.

    Args:
        most: New nodes that an Arrow stream may hold; a longer one is not read further.

    Raises:
        Problem: 400, 415 or 422, as the body is malformed.
    """
    if is_arrow(request):
        return _by_arrow(await read_arrow(request, most))
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


def check_edges(body: InferBody, most: int) -> None:
    """Refuse edges whose lists differ in length, that are more than ``most``, or that name a node there is not.

    Raises:
        Problem: 422.
    """
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
    if num_edges > most:
        raise Problem(422, f"the request has {num_edges:,} edges; at most {most:,} are taken")
    places = [*(body.edges.new if body.edges else ()), *_ends(body)]
    wrong = next((place for place in places if not 0 <= place < len(body.x)), None)
    if wrong is not None:
        raise Problem(422, f"an edge names new node {wrong}; the request has {len(body.x)}, counted from 0")


def _ends(body: InferBody) -> list[int]:
    return [] if body.new_edges is None else [*body.new_edges.source, *body.new_edges.target]


def resolved(body: InferBody, table: ServedTable, model: "InductiveModel") -> "NewNodes":
    """Return the new nodes as the network takes them, known nodes by their ids in ``table``.

    Raises:
        Problem: 422, a row has another length than the network's features, or a known node is unknown.
        InputError: The network refuses the nodes.
    """
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
