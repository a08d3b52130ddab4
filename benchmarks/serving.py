"""Asks a server from a second process: latency at a fixed rate, bytes per second, memory over minutes.

    .venv/bin/python benchmarks/serving.py --work FOLDER [--part latency throughput memory] [--minutes 3]

The open loop sends request i at its intended time, whether earlier ones are answered or not, and counts from that time:
a server that stalls is charged for all who waited. The closed loop keeps a few connections busy. The limit is a bare
asyncio server that answers every request with the same bytes, asked by the same client in the same run. One JSON line
per figure. Every round says what share of the processors' time the host gave to others meanwhile, as the kernel counts
it (steal): on a shared machine a tail of milliseconds may be the host's.
"""

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import uvloop
from serving_tables import made_table, random_blocks

from graphsys.core.units import MIB
from graphsys.storage.embeddings import EmbeddingTable

ARROW = "application/vnd.apache.arrow.stream"
DIM, BLOCK = 128, 65_536


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="Folder for the table; it is made once and kept.")
    parser.add_argument("--part", nargs="+", default=["latency", "throughput"], help="latency, throughput, memory")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=500, help="Requests per second of the open loop.")
    parser.add_argument("--seconds", type=float, default=10.0, help="Of every round.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=3.0, help="Of the memory part.")
    options = parser.parse_args()
    gc.disable()  # a collection in the client, 40 ms, would count as the server's
    table = made_table(options.work / f"emb-{options.rows}.gs", options.rows, DIM, random_blocks(options.rows, DIM))
    limits = {}
    with bare_server(table) as port:
        for part in set(options.part) - {"memory"}:
            limits[part] = PARTS[part](port, table, options)
    with served(table.path) as (process, port):
        check(port, table)
        for part in options.part:
            if part == "memory":
                print(json.dumps(memory(process, port, table, options)), flush=True)
            else:
                print(
                    json.dumps({"part": part, **PARTS[part](port, table, options), "limit": limits[part]}), flush=True
                )
    return 0


@contextmanager
def served(table: Path) -> Iterator[tuple[psutil.Process, int]]:
    """Yield the process of ``graphsys serve`` and its port."""
    command = [sys.executable, "-m", "graphsys.cli", "serve", str(table), "--port", "0", "--json", "--quiet"]
    with running(command) as (process, line):
        yield process, int(json.loads(line)["url"].rpartition(":")[2])


@contextmanager
def bare_server(table: EmbeddingTable) -> Iterator[int]:
    """Yield the port of a server that answers every request with bytes made beforehand."""
    command = [sys.executable, __file__, "--bare", str(table.dim * 4)]
    with running(command) as (_, line):
        yield int(line)


@contextmanager
def running(command: list[str]) -> Iterator[tuple[psutil.Process, str]]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield psutil.Process(process.pid), process.stdout.readline()
    finally:
        process.terminate()
        process.wait(30)


async def bare(row_bytes: int) -> None:
    """Answer a request of one id with one row's bytes, a longer one with those of a thousand."""
    loop = asyncio.get_running_loop()
    replies = {1: bytes(row_bytes), 1000: bytes(1000 * row_bytes)}

    class Bare(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: Any = transport
            self.held = bytearray()

        def data_received(self, data: bytes) -> None:
            self.held += data
            end = self.held.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            length = int(self.held[:end].lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            if len(self.held) < end + length:
                return
            del self.held[: end + length]
            body = replies[1 if length < 2000 else 1000]
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body))
            self.transport.write(body)

    server = await loop.create_server(Bare, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def arrow_request(count: int, seed: int = 0, rows: int = 1000) -> bytes:
    """Return a whole HTTP request for ``count`` random ids, both ways in Arrow."""
    ids = pa.array(np.random.default_rng(seed).integers(0, rows, count))
    sink = pa.BufferOutputStream()
    batch = pa.record_batch([ids], names=["id"])
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return request(bytes(sink.getvalue()), ARROW)


def json_request(ids: list[int]) -> bytes:
    return request(json.dumps({"ids": ids}).encode(), "application/json")


def request(body: bytes, kind: str) -> bytes:
    head = f"POST /v1/embeddings/lookup HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: "
    return head.encode() + b"%d\r\n\r\n" % len(body) + body


class Connection(asyncio.Protocol):
    """Sends one request at a time and waits for the whole reply; what came is counted and thrown away."""

    def __init__(self) -> None:
        self._reply: asyncio.Future[int] | None = None
        self._head = bytearray()
        self._missing = -1  # bytes of the body still to come; -1: the head is not whole
        self._length = 0
        self.kept: list[bytes] | None = None  # bodies, where they are looked at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self._missing < 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n") + 4
            if end < 4:
                return
            head = bytes(self._head[:end])
            assert head.startswith(b"HTTP/1.1 200"), head
            self._length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            self._missing = self._length
            data = bytes(self._head[end:])
            self._head.clear()
        if self.kept is not None:
            self.kept.append(data)
        self._missing -= len(data)
        if self._missing == 0:
            self._missing = -1
            assert self._reply is not None
            self._reply.set_result(self._length)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(ConnectionError(f"the server closed the connection: {exc}"))

    async def ask(self, request: bytes) -> int:
        """Return the bytes of the reply's body."""
        self._reply = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._reply


async def connect(port: int) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return connection


async def open_loop(port: int, make: Callable[[int], bytes], rate: float, seconds: float) -> list[float]:
    """Send at a fixed rate; return the seconds from each intended time to the end of its reply."""
    idle = [await connect(port) for _ in range(32)]
    latencies: list[float] = []

    async def one(number: int, intended: float) -> None:
        connection = idle.pop() if idle else await connect(port)
        await connection.ask(make(number))
        latencies.append(time.perf_counter() - intended)
        idle.append(connection)

    under_way: set[asyncio.Task[None]] = set()
    started, loop = time.perf_counter() + 0.1, asyncio.get_running_loop()

    def begin(number: int, intended: float) -> None:
        task = asyncio.create_task(one(number, intended))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    def keep_time() -> None:
        # A thread, since the loop's clock counts whole milliseconds; it sleeps, since spinning takes the server's core.
        for number in range(int(rate * seconds)):
            intended = started + number / rate
            time.sleep(max(0.0, intended - time.perf_counter()))
            loop.call_soon_threadsafe(begin, number, intended)

    await asyncio.to_thread(keep_time)
    await asyncio.sleep(0)  # the last one has begun
    await asyncio.gather(*under_way)
    if len(latencies) < int(rate * seconds):  # one that failed is no longer among the tasks under way
        raise ConnectionError(f"{int(rate * seconds) - len(latencies)} of {int(rate * seconds)} requests had no answer")
    for connection in idle:
        connection.transport.close()
    return latencies


async def closed_loop(
    port: int, make: Callable[[int], bytes], connections: int, seconds: float
) -> tuple[int, int, float]:
    """Keep every connection busy; return requests, bytes of replies and seconds."""
    requests = [make(number) for number in range(64)]
    started = time.perf_counter()

    async def one(place: int) -> tuple[int, int]:
        connection = await connect(port)
        done = received = 0
        while time.perf_counter() - started < seconds:
            received += await connection.ask(requests[(place + done) % len(requests)])
            done += 1
        connection.transport.close()
        return done, received

    counts = await asyncio.gather(*(one(place) for place in range(connections)))
    return sum(done for done, _ in counts), sum(got for _, got in counts), time.perf_counter() - started


def latency(port: int, table: EmbeddingTable, options: argparse.Namespace) -> dict[str, Any]:
    """Single ids, JSON both ways."""

    def make(number: int) -> bytes:
        return json_request([number * 7919 % table.num_rows])

    rounds = []
    for _ in range(options.rounds):
        stolen = Stolen()
        measured = np.array(run(open_loop(port, make, options.rate, options.seconds))) * 1e3
        quantiles = {f"p{q:g}_ms": round(float(np.percentile(measured, q)), 3) for q in (50, 99, 99.9, 100)}
        rounds.append({**quantiles, "stolen_percent": stolen.percent()})
    done, _, seconds = run(closed_loop(port, make, 8, options.seconds))
    return {"open_loop_per_s": options.rate, "rounds": rounds, "closed_loop_per_s": round(done / seconds)}


def throughput(port: int, table: EmbeddingTable, options: argparse.Namespace) -> dict[str, Any]:
    """A thousand ids, Arrow both ways; and what JSON reaches."""
    found = {}
    for name, make in (
        ("arrow", lambda number: arrow_request(1000, number, table.num_rows)),
        ("json", lambda number: json_request(list(range(number, number + 1000)))),
    ):
        rounds = []
        for _ in range(options.rounds):
            stolen = Stolen()
            done, received, seconds = run(closed_loop(port, make, 2, options.seconds))
            rounds.append((round(received / seconds / 1e6), round(done / seconds), stolen.percent()))
        for place, unit in enumerate(("mb_per_s", "per_s", "stolen_percent")):
            found[f"{name}_{unit}"] = [figures[place] for figures in rounds]
    return found


class Stolen:
    """What the host gave to others since this object was made."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def percent(self) -> float:
        now = psutil.cpu_times()
        spent = [after - before for after, before in zip(now, self._before, strict=True)]
        return round(100 * (now.steal - self._before.steal) / max(sum(spent), 0.01), 2)


def memory(process: psutil.Process, port: int, table: EmbeddingTable, options: argparse.Namespace) -> dict[str, Any]:
    """Resident memory, the mapped table left out, while single ids and thousands are asked for without pause."""

    async def both() -> list[tuple[float, float]]:
        seconds = options.minutes * 60
        watching = asyncio.create_task(watch(process, seconds))
        await asyncio.gather(
            closed_loop(port, lambda number: json_request([number]), 2, seconds),
            closed_loop(port, lambda number: arrow_request(1000, number, table.num_rows), 1, seconds),
            closed_loop(port, lambda number: json_request(list(range(number, number + 1000))), 1, seconds),
        )
        return await watching

    samples = np.array(run(both()))
    late = samples[len(samples) // 4 :]  # the first quarter warms up
    slope = np.polyfit(late[:, 0], late[:, 1], 1)[0] * 60
    return {
        "part": "memory",
        "minutes": options.minutes,
        "first_mib": round(float(late[0, 1]), 1),
        "last_mib": round(float(late[-1, 1]), 1),
        "most_mib": round(float(samples[:, 1].max()), 1),
        "slope_mib_per_minute": round(float(slope), 3),
    }


async def watch(process: psutil.Process, seconds: float) -> list[tuple[float, float]]:
    samples, started = [], time.perf_counter()
    while (now := time.perf_counter() - started) < seconds:
        used = process.memory_info()
        samples.append((now, (used.rss - used.shared) / MIB))
        await asyncio.sleep(1)
    return samples


def check(port: int, table: EmbeddingTable) -> None:
    """Check that a reply holds the table's own vectors, bit by bit."""

    async def ask() -> bytes:
        connection = await connect(port)
        connection.kept = []
        await connection.ask(arrow_request(1000, 5, table.num_rows))
        connection.transport.close()
        return b"".join(connection.kept)

    reply = pa.ipc.open_stream(run(ask())).read_all()
    ids = reply.column("id").to_numpy()
    vectors = reply.column("vector").combine_chunks().flatten().to_numpy().reshape(len(ids), -1)
    np.testing.assert_array_equal(vectors, table.take(ids))


def run(work: Awaitable[Any]) -> Any:
    async def whole() -> Any:
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(whole())


PARTS = {"latency": latency, "throughput": throughput}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        with suppress(KeyboardInterrupt):
            uvloop.run(bare(int(sys.argv[2])))
        os._exit(0)
    raise SystemExit(main())
