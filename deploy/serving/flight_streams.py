"""The Arrow Flight streams under way: how many, how far, and an end for those whose client stopped reading.

gRPC waits for ever for a client that is there and takes nothing, and its Python side has no time limit for that. A
stream that does not move is therefore ended where it can be: its connection is shut down.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from graphsys.deploy.serving.problems import Problem


class Stream:
    """One stream; whoever drives it says so with every batch."""

    def __init__(self, peer: str) -> None:
        self.peer = peer  # as gRPC spells it
        self.moved = time.monotonic()

    def move(self) -> None:
        """Note that the client took a batch, or sent one."""
        self.moved = time.monotonic()


class Streams:
    """All streams of one server; every method may be called from any thread.

    Args:
        most: How many may be under way at the same time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Stream] = set()
        self._changed = threading.Condition()
        self.draining = False  # no new streams; those under way go on

    @contextmanager
    def opened(self, peer: str) -> Iterator[Stream]:
        """Yield a stream's place.

        Raises:
            Problem: 429, all places are taken; 503, the server stops.
        """
        stream = Stream(peer)
        with self._changed:
            if self.draining:
                raise Problem(503, "the server is stopping; ask another one")
            if len(self._open) >= self._most:
                raise Problem(429, f"{self._most} streams are under way; ask again when one has ended")
            self._open.add(stream)
        try:
            yield stream
        finally:
            with self._changed:
                self._open.discard(stream)
                self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Take no new streams and wait for those under way; return whether all ended in time."""
        with self._changed:
            self.draining = True
            return self._changed.wait_for(lambda: not self._open, seconds)

    def stalled(self, seconds: float) -> set[str]:
        """Return the clients of whose streams none moved for so long."""
        with self._changed:
            peers = {stream.peer: 0.0 for stream in self._open}
            for stream in self._open:
                peers[stream.peer] = max(peers[stream.peer], stream.moved)
        return {peer for peer, moved in peers.items() if moved < time.monotonic() - seconds}


def shut_down(peers: set[str], port: int) -> None:
    """Shut down this process's connections from ``peers`` to its own ``port``."""
    if not peers:
        return
    wanted = {_address(peer) for peer in peers}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile, no socket, or one that listens
            _shut_down_socket(int(name), wanted, port)


def _shut_down_socket(number: int, wanted: set[tuple[str, int]], port: int) -> None:
    if not str(Path(f"/proc/self/fd/{number}").readlink()).startswith("socket:"):
        return
    with socket.socket(fileno=os.dup(number)) as connection:
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != port:
            return
        host, client_port = connection.getpeername()[:2]
        if (_plain(host), client_port) in wanted:
            connection.shutdown(socket.SHUT_RDWR)


def _address(peer: str) -> tuple[str, int]:
    """Return host and port of a peer such as ``ipv4:127.0.0.1:5000`` or ``ipv6:%5B::1%5D:5000``."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    return host.removeprefix("::ffff:")  # a version 4 address on a version 6 socket
