"""Every address and limit of the server, with its default and unit."""

import difflib
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from graphsys.core.config_parts import Section, Size
from graphsys.core.errors import ConfigError
from graphsys.core.units import GIB, MIB
from graphsys.deploy.lookup import Metric
from graphsys.deploy.serving.projection import DEFAULT_POINTS, MOST_POINTS

Storage = Literal["auto", "f32", "f16", "bf16", "i8"]


class ServeSettings(Section):
    """How one server listens, and what it refuses."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, lt=1 << 16, description="Port of HTTP; 0: any free one.")
    flight_port: int | None = Field(None, ge=0, lt=1 << 16, description="Port of Arrow Flight; none: not served.")
    insecure: bool = Field(False, description="Let a server without a token listen beyond this machine.")
    token_file: Path | None = Field(None, description="File with one `token [expiry]` a line; read again on change.")
    tls_cert: Path | None = Field(None, description="Certificate chain, PEM.")
    tls_key: Path | None = Field(None, description="Private key of the certificate, PEM.")
    run: Path | None = Field(None, description="Run file of the model behind the tables; none: found beside a table.")
    watch: Path | None = Field(None, description="Folder in which new tables appear.")
    watch_s: float = Field(1.0, gt=0, description="Seconds between looks into that folder.")
    activate_on_arrival: bool = Field(False, description="Make a table active as soon as it appears there.")
    metric: Metric = Field("cosine", description="Nearness that a search uses when it names none.")
    map_points: int = Field(
        DEFAULT_POINTS,
        ge=0,
        le=MOST_POINTS,
        description="Most points of the map on the page, where none is saved; 0: no map.",
    )
    index_storage: Storage = Field(
        "auto", description="How a graph of neighbours keeps vectors; auto: bf16, or f32 where that does not do."
    )
    index_folder: Path | None = Field(None, description="Folder that indices are kept in; none: beside their tables.")
    search_threads: int = Field(0, ge=0, description="Threads of one search, or of building an index; 0: one per core.")
    infer_batch: int = Field(256, gt=0, description="New nodes that are put together for one pass of the network.")
    infer_delay_s: float = Field(0.002, ge=0, description="How long a new node waits for others, in seconds.")
    access_log: bool = Field(False, description="Write one JSON line per request to standard error.")

    max_body_bytes: Size = Field(32 * MIB, description="Largest request body.")
    max_ids: int = Field(10_000, gt=0, description="Most ids, vectors or new nodes in one request.")
    max_edges: int = Field(100_000, ge=0, description="Most edges of new nodes in one request.")
    max_k: int = Field(1_000, gt=0, description="Most neighbours in one search.")
    max_concurrency: int = Field(64, gt=0, description="Requests worked on at the same time.")
    max_waiting: int = Field(1_024, ge=0, description="Requests that wait for their turn; one more is refused.")
    max_streams: int = Field(32, gt=0, description="Arrow Flight streams at the same time; one more is refused.")
    max_connections: int = Field(8_192, gt=0, description="Open connections; one more is refused.")
    max_header_bytes: Size = Field(64 << 10, description="Largest head of a request.")
    max_held_bytes: Size = Field(
        GIB, description="Most bytes of request bodies and unsent replies together; above, new requests are refused."
    )
    request_time_s: float = Field(30.0, gt=0, description="Longest work on one request, waiting included, in seconds.")
    activate_time_s: float = Field(3_600.0, gt=0, description="Longest activation of a table, in seconds.")
    body_time_s: float = Field(30.0, gt=0, description="Longest wait for a request's head, and for its body.")
    send_time_s: float = Field(
        60.0, gt=0, description="Longest that a client may take for a MiB of its reply, in seconds."
    )
    idle_time_s: float = Field(75.0, gt=0, description="How long a connection may stay open between requests.")
    drain_s: float = Field(30.0, gt=0, description="How long requests under way may take once the server stops.")

    @property
    def url_host(self) -> str:
        """The address as URLs have it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def url(self, port: int) -> str:
        """Return where HTTP answers on ``port``."""
        return f"{'https' if self.tls_cert else 'http'}://{self.url_host}:{port}"


def read_settings(options: dict[str, Any], overrides: list[str] | None = None) -> ServeSettings:
    """Return the settings of a command's options, with ``key=value`` overrides applied.

    Raises:
        ConfigError: A key is unknown, or a value is wrong.
    """
    values = dict(options)
    for override in overrides or []:
        key, sign, text = override.partition("=")
        if not sign:
            raise ConfigError(f"--set {override}: write it as key=value, such as --set max_ids=20000")
        if key not in ServeSettings.model_fields:
            near = difflib.get_close_matches(key, ServeSettings.model_fields, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else "docs/http.md lists the keys"
            raise ConfigError(f"--set {override}: unknown key '{key}'; {hint}")
        try:
            values[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {override}: '{text}' is not a YAML value") from error
    try:
        return ServeSettings.model_validate(values)
    except ValidationError as error:
        faults = [f"{fault['loc'][0]} is {fault['input']!r}: {fault['msg']}" for fault in error.errors()]
        raise ConfigError(f"the server's settings: {'; '.join(faults)}") from error
