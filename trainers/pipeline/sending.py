"""How fast processes of one machine send each other rows."""

import socket
import threading
import time

_BLOCK = 1 << 20  # bytes, as a chunk's rows
_BLOCKS = 64
_LIMIT_S = 10.0


def loopback_bytes_s() -> float:
    """Return bytes per second through a TCP connection within this machine, which gloo joins its processes by."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(_LIMIT_S)
        sender = threading.Thread(target=_send, args=(server.getsockname()[1],), daemon=True)
        sender.start()
        link, _ = server.accept()
        with link:
            link.settimeout(_LIMIT_S)
            buffer, left = bytearray(_BLOCK), _BLOCK * _BLOCKS
            started = time.perf_counter()
            while left and (count := link.recv_into(buffer)):
                left -= count
            seconds = time.perf_counter() - started
        sender.join(_LIMIT_S)
    return (_BLOCK * _BLOCKS - left) / seconds


def _send(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=_LIMIT_S) as link:
        for _ in range(_BLOCKS):
            link.sendall(bytes(_BLOCK))
