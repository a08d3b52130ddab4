"""Requests over HTTP: the token, time limits, repetitions, and refusals as errors."""

import ssl
from pathlib import Path
from typing import Any

import httpx
import orjson

from graphsys.client.errors import UnreachableError, refusal
from graphsys.client.retry import Patience, UnsentError
from graphsys.core.errors import ConfigError

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
# Before the request is sent; whatever it asks for, nothing was done.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# The connection ended while the request or the reply was on its way, as an idle one does that the server closes.
_BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class HttpTransport:
    """Connections to one server; may be used by several threads."""

    def __init__(self, url: str, token: str | None, ca: Path | None) -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        verify: bool | ssl.SSLContext = True
        if ca is not None:
            try:
                verify = ssl.create_default_context(cafile=ca)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"{ca} cannot be used as a certificate: {error}") from error
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"url is '{url}'; write it as http://host:port")
        self.url = url.rstrip("/")
        self._client = httpx.Client(base_url=self.url, headers=headers, verify=verify, follow_redirects=False)

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def send_json(self, method: str, path: str, body: Any, patience: Patience, *, repeatable: bool = True) -> Any:
        """Send plain values, or nothing, and return the plain values of the reply; raises as :meth:`send` does."""
        content = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        reply = self.send(method, path, content, JSON, patience, repeatable=repeatable)
        try:
            return orjson.loads(reply)
        except orjson.JSONDecodeError as error:
            raise UnreachableError(f"{self.url}{path} answers with something else than JSON: no graphsys?") from error

    def send(
        self, method: str, path: str, content: bytes | None, kind: str, patience: Patience, *, repeatable: bool = True
    ) -> bytes:
        """Send a body and return the reply's, both of content type ``kind``.

        Args:
            repeatable: Asking twice does no harm, so a request that broke off is sent again.

        Raises:
            RefusedError: The server refused it.
            UnreachableError: No server answered in time.
        """
        headers = {"accept": kind, **({} if content is None else {"content-type": kind})}

        def attempt(seconds: float) -> bytes:
            try:
                reply = self._client.request(method, path, content=content, headers=headers, timeout=seconds)
            except _UNSENT as error:
                raise UnsentError(f"{self.url} cannot be reached: {_reason(error)}") from error
            except _BROKEN as error:
                kind_of = UnsentError if repeatable else UnreachableError
                raise kind_of(f"{self.url} broke the connection off: {_reason(error)}") from error
            except httpx.TimeoutException as error:
                raise UnreachableError(
                    f"{self.url}{path} did not answer within {patience.timeout_s:g} seconds; give it more (timeout_s) "
                    f"or ask for less"
                ) from error
            except httpx.HTTPError as error:
                raise UnreachableError(f"{self.url} cannot be asked: {_reason(error)}") from error
            if reply.is_success:
                return reply.content
            after = reply.headers.get("retry-after")
            raise refusal(reply.status_code, reply.content, reason=reply.reason_phrase, retry_after=after)

        return patience.call(attempt)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
