"""The client itself: one method per question."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from graphsys.client.http import ARROW, HttpTransport
from graphsys.client.results import Downloaded, Inferred, Lookup, Neighbours, Predicted, TableInfo, Tables
from graphsys.client.retry import Patience
from graphsys.core.errors import ConfigError

if TYPE_CHECKING:
    from graphsys.client.flight import FlightTransport

Ids = Sequence[int | str] | npt.NDArray[Any]
Metric = Literal["cosine", "dot", "l2"]

_ARROW_IDS = 64  # from here on, bodies are Arrow
_FLIGHT_IDS = 8192  # from here on, ids go over Flight where there is one
_LONG_S = 3600.0  # for what reads a whole table


class Client:
    """Asks one server; may be used by several threads, and as a context manager.

    Args:
        url: Of HTTP, such as ``http://127.0.0.1:8080``.
        token: Sent as a bearer token.
        flight: Of Arrow Flight, such as ``grpc://127.0.0.1:8081``; ``grpc+tls://`` with TLS.
        timeout_s: Longest time of a call, repetitions included.
        retries: How often a request is repeated; see :class:`graphsys.client.retry.Patience` for which.
        ca: Certificate, PEM, that the server's must come from; the system's by default.

    Every method raises :class:`RefusedError` with what the server says, or :class:`UnreachableError`.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        flight: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        ca: Path | str | None = None,
    ) -> None:
        self._patience = Patience(timeout_s=timeout_s, retries=retries)
        certificate = None if ca is None else Path(ca)
        self._http = HttpTransport(url, token, certificate)
        self._flight = None if flight is None else _flight_transport(flight, token, certificate)

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def lookup(self, ids: Ids, *, version: str | None = None) -> Lookup:
        """Return the vectors of ids, all of one table; an unknown id is no error.

        From 8,192 ids on they go over Arrow Flight where the client knows one, where there is no limit.

        Args:
            ids: [Q] integers or strings.
            version: Of the table that must answer; the active one by default.
        """
        from graphsys.client.arrow import id_column, ids_stream, read_lookup

        column = id_column(ids) if len(ids) >= _ARROW_IDS else None
        if column is not None and self._flight is not None and len(ids) >= _FLIGHT_IDS:
            return self._flight.lookup(column, version, self._patience)
        if column is not None:
            body = ids_stream(column, version)
            return read_lookup(self._http.send("POST", "/v1/embeddings/lookup", body, ARROW, self._patience))
        answer = self._post("/v1/embeddings/lookup", {"ids": _plain(ids), "version": version})
        vectors = _rows(answer["vectors"], int(answer["dim"]))
        return Lookup(version=answer["version"], found=np.array(answer["found"], np.bool_), vectors=vectors)

    def search(
        self,
        *,
        ids: Ids | None = None,
        vectors: npt.ArrayLike | None = None,
        k: int = 10,
        metric: Metric | None = None,
        node_type: str | None = None,
        include_self: bool = False,
        exact: bool = False,
        version: str | None = None,
    ) -> Neighbours:
        """Return the nearest neighbours of ids or of vectors.

        Args:
            ids: [Q] integers or strings.
            vectors: [Q, dim] finite numbers; instead of ids.
            k: Neighbours wanted of each.
            metric: The server's own by default.
            node_type: Of the neighbours.
            include_self: Whether an id may be its own neighbour.
            exact: Compare with every row, instead of looking in the index.
            version: Of the table that must answer; the active one by default.
        """
        options = {"k": k, "include_self": include_self, "exact": exact}
        options |= _given({"metric": metric, "node_type": node_type, "version": version})
        path = "/v1/embeddings/search"
        if ids is not None and vectors is None:
            return _neighbours(self._post(path, {"ids": _plain(ids), **options}))
        if vectors is None or ids is not None:
            raise ConfigError("give either ids or vectors to search for")
        from graphsys.client.arrow import read_neighbours, search_stream

        body = search_stream(_matrix(vectors, "vectors"), options)
        return read_neighbours(self._http.send("POST", path, body, ARROW, self._patience))

    def infer(
        self,
        x: npt.ArrayLike,
        *,
        new: Sequence[int] = (),
        known: Ids = (),
        source: Sequence[int] = (),
        target: Sequence[int] = (),
        predict: bool = False,
        version: str | None = None,
    ) -> Inferred:
        """Return the vectors of nodes that the graph does not have.

        Args:
            x: [Q, D] features of the new nodes.
            new: [M] for each edge from a known node, which new node it leads to, from 0.
            known: [M] the id of the known node it comes from.
            source: [K] for each edge among new nodes, where it comes from, from 0.
            target: [K] where it leads to.
            predict: Whether predictions are wanted too.
            version: Of the table that must answer; the active one by default.
        """
        body: dict[str, Any] = {"x": _matrix(x, "x"), "predict": predict, "version": version}
        if len(known):
            body["edges"] = {"new": [int(value) for value in new], "known": _plain(known)}
        if len(source):
            body["new_edges"] = {"source": [int(one) for one in source], "target": [int(one) for one in target]}
        answer = self._post("/v1/embeddings/infer", body)
        chances, classes = answer.get("probabilities"), tuple(answer.get("classes", ()))
        return Inferred(
            version=answer["version"],
            vectors=_rows(answer["vectors"], int(answer["dim"])),
            probabilities=None if chances is None else _rows(chances, len(classes)),
            classes=classes,
        )

    def predict(self, ids: Ids, *, version: str | None = None) -> Predicted:
        """Return what the trained model says of known nodes: probabilities of classes, or values."""
        from graphsys.client.arrow import id_column, ids_stream, read_predicted

        column = id_column(ids) if len(ids) >= _ARROW_IDS else None
        if column is not None:
            body = ids_stream(column, version)
            return read_predicted(self._http.send("POST", "/v1/predict", body, ARROW, self._patience))
        answer = self._post("/v1/predict", {"ids": _plain(ids), "version": version})
        classes = tuple(answer["classes"])
        return Predicted(
            version=answer["version"],
            found=np.array(answer["found"], np.bool_),
            probabilities=_rows(answer["probabilities"], len(classes)),
            classes=classes,
        )

    def tables(self) -> Tables:
        """Return the tables that the server knows."""
        answer = self._http.send_json("GET", "/v1/tables", None, self._patience)
        return Tables(active=answer["active"], tables=tuple(_table(item) for item in answer["tables"]))

    def activate(self, version: str, *, timeout_s: float = _LONG_S) -> TableInfo:
        """Make a known table the active one; return when it is. It is not repeated once the server was asked."""
        patience = Patience(timeout_s=timeout_s, retries=self._patience.retries)
        path = f"/v1/tables/{quote(version, safe='')}/activate"
        return _table(self._http.send_json("POST", path, None, patience, repeatable=False))

    def download(self, version: str | None = None, *, streams: int = 1, timeout_s: float = _LONG_S) -> Downloaded:
        """Return a whole table, over Arrow Flight.

        Args:
            version: The active one by default.
            streams: Connections that fetch parts of it at the same time.
        """
        if self._flight is None:
            raise ConfigError("a download needs Arrow Flight: Client(url, flight='grpc://host:port')")
        if streams < 1:
            raise ConfigError(f"streams is {streams}; at least 1 is needed")
        patience = Patience(timeout_s=timeout_s, retries=self._patience.retries)
        return self._flight.download(version, streams, patience)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._http.send_json("POST", path, _given(body), self._patience)


def _flight_transport(url: str, token: str | None, ca: Path | None) -> "FlightTransport":
    from graphsys.client.flight import FlightTransport  # loads pyarrow, which HTTP alone can do without

    return FlightTransport(url, token, ca)


def _plain(ids: Ids) -> list[Any]:
    return ids.tolist() if isinstance(ids, np.ndarray) else [_number(value) for value in ids]


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _matrix(values: npt.ArrayLike, name: str) -> npt.NDArray[np.float32]:
    matrix = np.ascontiguousarray(values, np.float32)
    if matrix.ndim != 2 or matrix.size == 0:
        raise ConfigError(f"{name} has the shape {matrix.shape}; give one row per query, [Q, D]")
    return matrix


def _rows(rows: Sequence[Sequence[float | None] | None], width: int) -> npt.NDArray[np.float32]:
    """Return rows [Q, width]; zeros for a missing row, NaN for a missing number."""
    width = next((len(row) for row in rows if row is not None), width)
    return np.array([[0.0] * width if row is None else row for row in rows], np.float32).reshape(len(rows), width)


def _neighbours(answer: Mapping[str, Any]) -> Neighbours:
    near = answer["neighbors"]
    k = max((len(row) for row in near), default=0)
    names = [[item["id"] for item in row] for row in near]
    integers = all(isinstance(name, int) for row in names for name in row)
    ids = np.zeros((len(near), k), np.int64) if integers else np.full((len(near), k), "", np.object_)
    scores = np.full((len(near), k), np.nan, np.float32)
    for index, row in enumerate(near):
        ids[index, : len(row)] = names[index]
        scores[index, : len(row)] = [np.nan if item["score"] is None else item["score"] for item in row]
    return Neighbours(
        version=answer["version"],
        metric=answer["metric"],
        found=np.array(answer["found"], np.bool_),
        num_found=np.array([len(row) for row in near], np.int64),
        ids=ids,
        scores=scores,
    )


def _table(item: Mapping[str, Any]) -> TableInfo:
    known = TableInfo.__dataclass_fields__
    return TableInfo(**{name: value for name, value in item.items() if name in known})
