"""Whole tables and very many ids over Arrow Flight."""

import json
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import flight

from graphsys.client.arrow import as_lookup, rows_of, version_of
from graphsys.client.errors import RefusedError, UnreachableError, refusal
from graphsys.client.results import Downloaded, Lookup
from graphsys.client.retry import Patience, UnsentError
from graphsys.core.errors import ConfigError

LOOKUP_BATCH = 4096  # ids sent at a time
_STARTS = 3  # of a download whose table was retired meanwhile


class FlightTransport:
    """Connections to one Flight server, made when they are first needed."""

    def __init__(self, url: str, token: str | None, ca: Path | None) -> None:
        if not url.startswith(("grpc://", "grpc+tls://")):
            raise ConfigError(f"flight is '{url}'; write it as grpc://host:port, or grpc+tls:// with TLS")
        self.url = url
        self._headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        self._roots: dict[str, Any] = {}
        if ca is not None:
            try:
                self._roots["tls_root_certs"] = ca.read_bytes()
            except OSError as error:
                raise ConfigError(f"{ca} cannot be read: {error.strerror}") from error

    def lookup(self, column: Any, version: str | None, patience: Patience) -> Lookup:
        """Return the vectors of any number of ids, all of one table; raises as :meth:`download` does."""

        def attempt(seconds: float) -> Lookup:
            with self._connected() as client:
                descriptor = flight.FlightDescriptor.for_command(json.dumps({"table": version}))
                writer, reader = client.do_exchange(descriptor, self._options(seconds))
                with writer:
                    return as_lookup(_exchange(writer, reader, column))

        return patience.call(attempt)

    def download(self, version: str | None, streams: int, patience: Patience) -> Downloaded:
        """Return a whole table, fetched over ``streams`` connections.

        Raises:
            RefusedError: The server refused it.
            UnreachableError: It was not reached, or broke off, within the time limit.
        """
        return patience.call(lambda seconds: self._download(version, streams, seconds))

    def _download(self, version: str | None, streams: int, seconds: float) -> Downloaded:
        for start in range(1, _STARTS + 1):
            try:
                return self._download_version(self._info(version, seconds), streams, seconds)
            except RefusedError as error:
                # Another table became active between two streams, so the first one is gone.
                if error.status != 404 or version is not None or start == _STARTS:
                    raise
        raise AssertionError("a download ends with its last start")

    def _info(self, version: str | None, seconds: float) -> Any:
        with self._connected() as client:
            descriptor = flight.FlightDescriptor.for_command(json.dumps({"table": version}))
            return client.get_flight_info(descriptor, self._options(seconds))

    def _download_version(self, info: Any, streams: int, seconds: float) -> Downloaded:
        rows, version = info.total_records, version_of(info.schema)
        kinds = {name: info.schema.field(name).type for name in ("id", "vector")}
        vectors = np.empty((rows, kinds["vector"].list_size), kinds["vector"].value_type.to_pandas_dtype())
        ids = np.empty(rows, np.int64 if pa.types.is_integer(kinds["id"]) else np.object_)
        ends = [rows * part // streams for part in range(streams + 1)]

        def fetch(part: int) -> None:
            ticket = {"table": version, "start": ends[part], "stop": ends[part + 1]}
            self._fetch(ticket, ids[ends[part] : ends[part + 1]], vectors[ends[part] : ends[part + 1]], seconds)

        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(fetch, range(streams)))
        return Downloaded(version=version, ids=ids, vectors=vectors)

    def _fetch(self, ticket: dict[str, Any], ids: npt.NDArray[Any], vectors: npt.NDArray[Any], seconds: float) -> None:
        done = 0
        with self._connected() as client:
            for chunk in client.do_get(flight.Ticket(json.dumps(ticket)), self._options(seconds)):
                batch = chunk.data
                end = done + batch.num_rows
                vectors[done:end] = rows_of(batch.column("vector"))
                ids[done:end] = batch.column("id").to_numpy(zero_copy_only=False)
                done = end
        if done != len(ids):
            raise UnreachableError(f"{self.url} sent {done:,} of {len(ids):,} rows; ask again")

    def _options(self, seconds: float) -> Any:
        return flight.FlightCallOptions(timeout=seconds, headers=self._headers)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Yield a connection of one's own; what goes wrong with it becomes one of the client's errors."""
        try:
            with flight.connect(self.url, **self._roots) as client:
                yield client
        except flight.FlightTimedOutError as error:
            raise UnreachableError(f"{self.url} was not done in time; give it more (timeout_s)") from error
        except (flight.FlightError, pa.ArrowException, OSError) as error:
            raise _translated(error, self.url) from error


def _exchange(writer: Any, reader: Any, column: Any) -> Any:
    """Send ids from a thread while answers are read: neither side waits for the other's whole message."""
    failed: queue.SimpleQueue[Exception] = queue.SimpleQueue()

    def send() -> None:
        try:
            writer.begin(pa.schema([("id", column.type)]))
            for start in range(0, len(column), LOOKUP_BATCH):
                writer.write_batch(pa.record_batch([column.slice(start, LOOKUP_BATCH)], names=["id"]))
            writer.done_writing()
        except (pa.ArrowException, OSError) as error:
            failed.put(error)  # the reader tells why

    sending = threading.Thread(target=send, name="flight-ids")
    sending.start()
    try:
        return reader.read_all()
    finally:
        sending.join()


def _translated(error: Exception, url: str) -> Exception:
    raw: bytes = getattr(error, "extra_info", b"") or b""
    status = _status(raw)
    if status is not None:
        # Busy or stopping: nothing was done, and Flight has no header that says when to come back.
        return refusal(status, raw, retry_after="0" if status in (429, 503) else None)
    said = str(error).partition(". Detail:")[0].partition(". gRPC")[0]
    if isinstance(error, flight.FlightUnavailableError):
        return UnsentError(f"{url} cannot be reached: {said}")
    return UnreachableError(f"{url}: {said}")


def _status(raw: bytes) -> int | None:
    try:
        found = json.loads(raw)["status"]
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None
