"""What a client may call over Arrow Flight, and how a call is refused."""

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyarrow import flight

from graphsys.core.errors import GraphsysError
from graphsys.deploy.serving.flight_batches import (
    Plan,
    Slice,
    cut,
    lookup_batch,
    lookup_schema,
    slice_batches,
    table_schema,
)
from graphsys.deploy.serving.flight_streams import Streams
from graphsys.deploy.serving.problems import Problem, as_problem
from graphsys.deploy.serving.service import Service
from graphsys.deploy.serving.wire import parse_json

if TYPE_CHECKING:

    class _ServerBase:
        port: int

        def __init__(self, location: str, **options: Any) -> None: ...
        def shutdown(self) -> None: ...

    class _FactoryBase:
        pass
else:
    _ServerBase, _FactoryBase = flight.FlightServerBase, flight.ServerMiddlewareFactory

_LOG = logging.getLogger(__name__)
# A Flight error carries the problem's JSON beside its message, so a client loses nothing of it.
_CLASSES = {
    401: flight.FlightUnauthenticatedError,
    429: flight.FlightUnavailableError,
    503: flight.FlightUnavailableError,
}


class FlightGate(_FactoryBase):
    """Lets a call in when it brings a token and the server does not stop."""

    def __init__(self, service: Service, streams: Streams) -> None:
        super().__init__()
        self._service = service
        self._streams = streams

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> None:  # noqa: ARG002 - pyarrow's signature
        """Check a call before anything of it is read."""
        with _refusing():
            self._service.tokens.check(next(iter(headers.get("authorization", [])), None))
            if self._streams.draining:
                raise Problem(503, "the server is stopping; ask another one")


class FlightCalls(_ServerBase):
    """The calls of Flight; each runs in a thread of gRPC's."""

    def __init__(self, service: Service, streams: Streams, location: str, **options: Any) -> None:
        super().__init__(location, **options)
        self._service = service
        self._streams = streams

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[Any]:  # noqa: ARG002 - pyarrow's signature
        """Yield the tables that are loaded, the active one first."""
        with _refusing():
            registry = self._service.registry
            loaded = [item for item in registry.listing() if item.state in ("active", "retiring")]
            infos = [self._info(Plan(table=item.version)) for item in sorted(loaded, key=lambda item: item.state)]
        yield from infos

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:  # noqa: ARG002 - pyarrow's signature
        """Return schema, size and tickets of a table: a path of its version, or a :class:`Plan` as JSON."""
        with _refusing():
            return self._info(_plan(descriptor))

    def get_schema(self, context: Any, descriptor: Any) -> Any:  # noqa: ARG002 - pyarrow's signature
        """Return a table's schema."""
        with _refusing(), self._service.registry.lease(_plan(descriptor).table) as table:
            return flight.SchemaResult(table_schema(table))

    def _info(self, plan: Plan) -> Any:
        with self._service.registry.lease(plan.table) as table:
            slices = cut(table, plan.streams)
            tickets = [flight.FlightEndpoint(part.model_dump_json().encode(), []) for part in slices]
            descriptor = flight.FlightDescriptor.for_path(table.version)
            size = table.table.vectors.spec.nbytes
            return flight.FlightInfo(table_schema(table), descriptor, tickets, table.num_rows, size)

    def do_get(self, context: Any, ticket: Any) -> Any:
        """Stream a :class:`Slice` of a table."""
        with _refusing():
            part = parse_json(ticket.ticket, Slice)
            batches = self._slice(part, context.peer())
            # Runs it up to its first yield, from where on it is closed with the stream, read or not.
            schema = next(batches)
        return flight.GeneratorStream(schema, batches)

    def _slice(self, part: Slice, peer: str) -> Iterator[Any]:
        """Yield the schema, then every batch; hold the table and a place until the end."""
        with self._counted("do_get"), ExitStack() as held:
            stream = held.enter_context(self._streams.opened(peer))
            table = held.enter_context(self._service.registry.lease(part.table))
            start, stop = part.bounds(table.num_rows)
            yield table_schema(table)
            for batch in slice_batches(table, start, stop):
                stream.move()
                yield batch
            stream.move()

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """Answer batches of one column ``id``, each by one with ``id``, ``found`` and ``vector``, from one table."""
        with _refusing(), self._counted("do_exchange"), ExitStack() as held:
            stream = held.enter_context(self._streams.opened(context.peer()))
            table = held.enter_context(self._service.registry.lease(_plan(descriptor).table))
            schema = lookup_schema(table, _id_type(_schema_of(reader)))
            writer.begin(schema)
            for chunk in reader:
                stream.move()
                if chunk.data is None:
                    raise Problem(422, "a message of the stream has metadata and no ids; send batches of ids")
                ids = self._ids(chunk.data.column(0), schema.field("id").type)
                self._service.telemetry.observe_batch("lookup", len(ids))
                writer.write_batch(lookup_batch(table, ids, schema))
                stream.move()

    def _ids(self, ids: Any, kind: Any) -> Any:
        most = self._service.settings.max_ids
        if len(ids) > most:
            raise Problem(422, f"a batch has {len(ids):,} ids; at most {most:,} are answered at once, so send several")
        if ids.null_count:
            raise Problem(422, "an id is null; leave it out")
        try:
            ids.validate(full=True)
            return ids.cast(kind)
        except pa.ArrowInvalid as error:
            raise Problem(422, f"the ids are not {kind}: {' '.join(str(error).split())[:200]}") from error

    @contextmanager
    def _counted(self, call: str) -> Iterator[None]:
        started, status = time.perf_counter(), 200
        try:
            yield
        except Problem as problem:
            status = problem.status
            raise
        except GeneratorExit:
            status = 499  # the client left
            raise
        except BaseException:
            status = 500
            raise
        finally:
            seconds = time.perf_counter() - started
            self._service.telemetry.observe_request(
                route=f"flight/{call}", method="FLIGHT", status=status, seconds=seconds
            )


def _plan(descriptor: Any) -> Plan:
    if descriptor.descriptor_type != flight.DescriptorType.PATH:
        return parse_json(descriptor.command or b"{}", Plan)
    if len(descriptor.path) > 1:
        raise Problem(422, f"a path of {len(descriptor.path)} parts names no table; give its version alone")
    return Plan(table=descriptor.path[0].decode(errors="replace") if descriptor.path else None)


def _schema_of(reader: Any) -> Any:
    try:
        return reader.schema
    except OSError as error:
        raise Problem(400, "the stream ended before it began; send one column 'id'") from error


def _id_type(schema: Any) -> Any:
    if schema.names != ["id"]:
        raise Problem(422, f"the stream has columns {schema.names}; send one column 'id'")
    found = schema.field("id").type
    if pa.types.is_integer(found):
        return pa.int64()
    if pa.types.is_string(found) or pa.types.is_large_string(found):
        return pa.large_string()
    raise Problem(422, f"column 'id' is of type {found}; send int64 or string")


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn what goes wrong in the block into a Flight error of one sentence."""
    try:
        yield
    except Problem as problem:
        raise _flight_error(problem) from None
    except GraphsysError as error:
        raise _flight_error(as_problem(error)) from None
    except pa.ArrowException:
        raise  # of the connection, or of what the client sent
    except Exception as error:  # noqa: BLE001 - pyarrow would send the traceback to the client
        _LOG.error("an Arrow Flight call failed", exc_info=error)
        raise _flight_error(Problem(500, "this is a bug in graphsys; the server's log says more")) from None


def _flight_error(problem: Problem) -> Exception:
    error: Exception = _CLASSES.get(problem.status, flight.FlightServerError)(problem.detail, problem.body())
    return error
