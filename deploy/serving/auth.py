"""Who may ask: bearer tokens, compared in constant time, that may expire and be exchanged while the server runs."""

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from graphsys.core.errors import ConfigError, GraphsysError
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.storage.files import disk_errors

TOKEN_VARIABLE = "GRAPHSYS_TOKEN"
LEAST_TOKEN = 16  # characters; shorter ones can be guessed over a network
LOOK_S = 1.0  # seconds between looks at the token file
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token, kept as its SHA-256 so that comparing takes as long for any two texts."""

    digest: bytes
    expires: datetime | None  # with a time zone


class Tokens:
    """The tokens of one server.

    Args:
        tokens: Those that are known; none lets everybody in.
        file: Where they come from; it is read again when it changes. A broken file changes nothing but the log.
    """

    def __init__(self, tokens: Sequence[Token], file: Path | None = None) -> None:
        self._tokens = tuple(tokens)
        self._file = file
        self._seen = _signature(file)
        self._looked = time.monotonic()

    @property
    def required(self) -> bool:
        """Whether a request needs a token."""
        return self._file is not None or bool(self._tokens)

    def check(self, header: bytes | str | None) -> None:
        """Let a request with this ``Authorization`` header in.

        Raises:
            Problem: 401, the token is missing, wrong or expired.
        """
        if not self.required:
            return
        self._look()
        text = header.decode("latin-1") if isinstance(header, bytes) else header or ""
        scheme, _, given = text.partition(" ")
        if scheme.lower() != "bearer" or not given.strip():
            raise _unauthorised("send the header 'Authorization: Bearer TOKEN'", "")
        digest = _digest(given.strip())
        # Every token is compared, so that the time tells nothing of which one was met.
        met = [token for token in self._tokens if hmac.compare_digest(digest, token.digest)]
        if not met:
            raise _unauthorised("the token is not one of this server's", "invalid_token")
        if all(token.expires is not None and token.expires <= datetime.now(UTC) for token in met):
            when = max(token.expires for token in met if token.expires is not None)
            raise _unauthorised(f"the token expired at {when.isoformat()}; ask for a new one", "invalid_token")

    def _look(self) -> None:
        now = time.monotonic()
        if self._file is None or now - self._looked < LOOK_S:
            return
        self._looked = now
        found = _signature(self._file)
        if found in (None, self._seen):
            return  # a file that is being exchanged may be missing for a moment
        self._seen = found
        try:
            self._tokens = read_tokens(self._file)
        except GraphsysError as error:
            _LOG.error("%s; the tokens known before stay valid", error)


def make_tokens(settings: ServeSettings, environment: Mapping[str, str] = os.environ) -> Tokens:
    """Return the tokens of the token file, or the one in the environment.

    Raises:
        ConfigError: A token is too short or its expiry no date, or the server would listen beyond this machine
            without any.
        DiskError: The file cannot be read.
    """
    if settings.token_file is not None:
        tokens = Tokens(read_tokens(settings.token_file), settings.token_file)
    elif environment.get(TOKEN_VARIABLE):
        tokens = Tokens([_token(environment[TOKEN_VARIABLE].strip(), "", f"${TOKEN_VARIABLE}")])
    else:
        tokens = Tokens([])
    if not (tokens.required or settings.insecure or is_loopback(settings.host)):
        raise ConfigError(
            f"--host {settings.host} can be reached from other machines, and there is no token: give --token-file, "
            f"set ${TOKEN_VARIABLE}, or say --insecure"
        )
    return tokens


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # a name: who knows where it leads


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file: ``token [expiry]`` a line, ``#`` starts a comment.

    Raises:
        ConfigError: A line is wrong; the message names its number, never the token.
        DiskError: The file cannot be read.
    """
    with disk_errors("read", path):
        raw = path.read_bytes()
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text: {error.reason} at byte {error.start}") from error
    tokens = []
    for number, line in enumerate(lines, 1):
        fields = line.partition("#")[0].split(maxsplit=1)
        if fields:
            tokens.append(_token(fields[0], fields[1].strip() if fields[1:] else "", f"{path}, line {number}"))
    if not tokens:
        raise ConfigError(f"{path} holds no token; write `token [expiry]` a line")
    return tuple(tokens)


def _token(text: str, expiry: str, where: str) -> Token:
    if len(text) < LEAST_TOKEN:
        raise ConfigError(f"{where}: the token has {len(text)} characters; at least {LEAST_TOKEN} are needed")
    try:
        expires = datetime.fromisoformat(expiry) if expiry else None
    except ValueError as error:
        raise ConfigError(f"{where}: the expiry '{expiry}' is no date such as 2031-12-31T23:59:59Z") from error
    if expires is not None and expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    return Token(digest=_digest(text), expires=expires)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _signature(file: Path | None) -> tuple[int, int, int] | None:
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _unauthorised(detail: str, code: str) -> Problem:
    challenge = f'Bearer realm="graphsys"{f", error={code!r}" if code else ""}'.replace("'", '"')
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})
