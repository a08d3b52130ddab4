"""Arrow Flight beside HTTP: whole tables in parallel streams, and look-ups of any number of ids."""

import logging
import threading
import time

import pyarrow as pa

from graphsys.core.errors import ConfigError
from graphsys.deploy.serving.flight_calls import FlightCalls, FlightGate
from graphsys.deploy.serving.flight_streams import Streams, shut_down
from graphsys.deploy.serving.looking import Looking
from graphsys.deploy.serving.service import Service
from graphsys.storage.files import disk_errors

_LOOK_S = 1.0  # seconds between looks for clients that stopped reading
_END_S = 10.0  # longest wait for gRPC to end, once nothing is under way
_LOG = logging.getLogger(__name__)


class FlightService:
    """A Flight server over the same tables, tokens and limits as HTTP.

    It listens from its making on. :meth:`stop` takes no new streams, waits for those under way, and ends what is left.

    Raises:
        ConfigError: The port is taken, or the certificate cannot be used.
        DiskError: Certificate or key cannot be read.
    """

    def __init__(self, service: Service) -> None:
        settings = service.settings
        if settings.flight_port is None:
            raise ConfigError("there is no --flight-port to serve Arrow Flight on")
        self._service = service
        self._streams = Streams(settings.max_streams)
        self._scheme = "grpc+tls" if settings.tls_cert else "grpc"
        try:
            self._server = FlightCalls(
                service,
                self._streams,
                f"{self._scheme}://{settings.url_host}:{settings.flight_port}",
                tls_certificates=_certificates(service),
                middleware={"gate": FlightGate(service, self._streams)},
            )
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(
                f"cannot serve Arrow Flight on {settings.host}:{settings.flight_port}: the port is taken, or the "
                f"certificate cannot be used; choose another --flight-port, or 0 for any free one"
            ) from error
        self._looking = Looking(self._end_stalled, every_s=_LOOK_S, name="flight-watch")
        self._looking.start()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{self._scheme}://{self._service.settings.url_host}:{self._server.port}"

    def stop(self) -> None:
        """End the server; returns after ``drain_s`` and a few seconds at the latest."""
        if not self._streams.drain(self._service.settings.drain_s):
            self._shut_down(0)
        ending = threading.Thread(target=self._server.shutdown, name="flight-end", daemon=True)
        ending.start()
        end = time.monotonic() + _END_S
        while ending.is_alive() and time.monotonic() < end:
            ending.join(0.2)
            self._shut_down(0)
        if ending.is_alive():
            _LOG.error("Arrow Flight did not end within %.0f seconds of the last stream", _END_S)
        self._looking.stop()

    def _end_stalled(self) -> None:
        self._shut_down(self._service.settings.send_time_s)

    def _shut_down(self, seconds: float) -> None:
        """Shut down the connections of clients that took nothing for so long."""
        peers = self._streams.stalled(seconds)
        if peers:
            _LOG.warning("Arrow Flight: connections to %s are ended: no batch was taken in time", ", ".join(peers))
        shut_down(peers, self._server.port)


def _certificates(service: Service) -> list[tuple[bytes, bytes]]:
    cert, key = service.settings.tls_cert, service.settings.tls_key
    if cert is None or key is None:
        return []
    with disk_errors("read", cert):
        chain = cert.read_bytes()
    with disk_errors("read", key):
        return [(chain, key.read_bytes())]
