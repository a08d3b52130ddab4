"""What a server needs of the system before it answers: a socket, open files, a certificate."""

import resource
import socket
import ssl
from functools import partial
from pathlib import Path

from graphsys.core.errors import ConfigError, DiskError
from graphsys.deploy.serving.settings import ServeSettings

BACKLOG = 2048  # connections that wait to be taken


def bind(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens on the server's address; who connects is answered once the server runs.

    Raises:
        ConfigError: The address is not this machine's, or the port is taken.
    """
    try:
        family, kind, _, _, where = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"--host {settings.host} is no address of this machine: {error.strerror}") from error
    listener = socket.socket(family, kind)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(where)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port}: {reason}; choose another --port, or 0 for any free one"
        ) from error
    return listener


def allow_open_files() -> None:
    """Let the process open as many files as the system lets it: every connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def check_certificate(settings: ServeSettings) -> None:
    """Check that certificate and key can be read and belong together.

    Raises:
        ConfigError: They do not, or one of them is missing.
    """
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigError("TLS needs both --tls-cert and --tls-key")
    if settings.tls_cert is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_cert, settings.tls_key, partial(_refuse_passphrase, settings.tls_key)
        )
    except ssl.SSLError as error:
        raise ConfigError(
            f"{settings.tls_cert} and {settings.tls_key} are no certificate and its key: {error}"
        ) from error
    except OSError as error:
        raise DiskError(f"cannot read {settings.tls_cert} or {settings.tls_key}: {error.strerror}") from error


def _refuse_passphrase(key: Path | None) -> str:
    # OpenSSL would ask for it on the terminal, and a server may have none.
    raise ConfigError(f"{key} is locked by a passphrase; write it without one: openssl pkey -in {key} -out NEW.pem")
