"""Requests over HTTP: the token, time limits, repetitions, and refusals as errors."""

import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import orjson

from graphsys.client.errors import UnreachableError, refusal
from graphsys.client.retry import Patience, UnsentError
from graphsys.core.errors import ConfigError

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_MOST_PORT = 65535
# Before the request is sent; whatever it asks for, nothing was done.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
# The connection ended while the request or the reply was on its way, as an idle one does that the server closes.
_BROKEN = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class HttpTransport:
    """Connections to one server; may be used by several threads."""

    def __init__(self, url: str, token: str | None, ca: Path | None) -> None:
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigError("the token holds characters that no header can carry; is there a line break in it?")
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
        try:
            self._client = httpx.Client(base_url=self.url, headers=headers, verify=verify, follow_redirects=False)
        except httpx.InvalidURL as error:
            raise ConfigError(f"url is '{url}': {error}; write it as http://host:port") from error
        if (port := self._client.base_url.port or 0) > _MOST_PORT:
            raise ConfigError(f"url is '{url}': there is no port {port}; write it as http://host:port")

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
                request = self._client.build_request(method, path, content=content, headers=headers, timeout=seconds)
                reply, answer = self._within(request, seconds)
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
                return answer
            after = reply.headers.get("retry-after")
            raise refusal(reply.status_code, answer, reason=reply.reason_phrase, retry_after=after)

        return patience.call(attempt)

    def _within(self, request: httpx.Request, seconds: float) -> tuple[httpx.Response, bytes]:
        """Return the reply and its whole body; httpx itself limits each wait, not their sum."""
        end = time.monotonic() + seconds
        reply = self._client.send(request, stream=True)
        try:
            parts = []
            for part in reply.iter_bytes():
                parts.append(part)
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the reply did not end in time", request=request)
        finally:
            reply.close()
        return reply, b"".join(parts)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
