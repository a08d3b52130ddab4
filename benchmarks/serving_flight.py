"""Arrow Flight against a bare Flight server of pyarrow: how fast a whole table reaches another process.

Both servers run in this process, the client in another; tables are warm in the page cache. Bytes are those of the
record batches as received, ids included. Each figure is the median of ``--repeats`` transfers, in turns, so that a
disturbed machine disturbs all alike.

    python benchmarks/serving_flight.py                     # 1 M x 128 float32
    python benchmarks/serving_flight.py --rows 200000 --streams 1 2 4
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import flight
from serving_tables import made_table, random_blocks

from graphsys.core.machine import commit, machine, versions
from graphsys.deploy.serving.flight import FlightService
from graphsys.deploy.serving.flight_batches import BATCH_BYTES
from graphsys.deploy.serving.service import make_service
from graphsys.deploy.serving.settings import ServeSettings

if TYPE_CHECKING:

    class _ServerBase:
        port: int

        def __init__(self, location: str) -> None: ...
        def shutdown(self) -> None: ...
else:
    _ServerBase = flight.FlightServerBase


class BareServer(_ServerBase):
    """The least there can be: batches cut from one array in memory, written by pyarrow itself."""

    def __init__(self, vectors: npt.NDArray[np.float32], batch_bytes: int) -> None:
        super().__init__("grpc://127.0.0.1:0")
        rows, dim = vectors.shape
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
        self._table = pa.table({"id": np.arange(rows), "vector": column})
        self._step = max(1, batch_bytes // vectors[0].nbytes)

    def do_get(self, context: Any, ticket: Any) -> Any:  # noqa: ARG002 - pyarrow's signature
        """Stream rows [start, stop)."""
        asked = json.loads(ticket.ticket)
        part = self._table.slice(asked["start"], asked["stop"] - asked["start"])
        reader = pa.RecordBatchReader.from_batches(part.schema, part.to_batches(max_chunksize=self._step))
        return flight.RecordBatchStream(reader)


def transfer(url: str, rows: int, streams: int) -> tuple[float, int]:
    """Fetch all rows over ``streams`` connections; return seconds and bytes."""
    ends = [rows * part // streams for part in range(streams + 1)]
    tickets = [json.dumps({"start": start, "stop": stop}) for start, stop in pairwise(ends)]
    clients = [flight.connect(url) for _ in tickets]
    for client in clients:
        client.wait_for_available(timeout=10)

    def fetch(client: Any, ticket: str) -> int:
        return sum(chunk.data.nbytes for chunk in client.do_get(flight.Ticket(ticket.encode())))

    started = time.perf_counter()
    with ThreadPoolExecutor(streams) as pool:
        received = sum(pool.map(fetch, clients, tickets))
    seconds = time.perf_counter() - started
    for client in clients:
        client.close()
    return seconds, received


def client_main(args: argparse.Namespace) -> None:
    """Measure, in the client's process, every server over every number of streams; print one JSON object."""
    found: dict[str, list[float]] = {}
    for turn in range(args.repeats + 1):
        for streams in args.streams:
            for url in args.client:
                seconds, received = transfer(url, args.rows, streams)
                assert received >= args.rows * args.dim * 4
                if turn:  # the first one warms up
                    found.setdefault(f"{url} {streams}", []).append(received / seconds / 1e9)
    print(json.dumps(found))


def main() -> None:
    """Serve, measure, and print a Markdown table or, with ``--json``, everything."""
    args = arguments()
    if args.client:
        client_main(args)
        return
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        table = made_table(Path(folder) / "emb.gs", args.rows, args.dim, random_blocks(args.rows, args.dim))
        service = make_service(ServeSettings(port=0, flight_port=0))
        service.registry.activate(service.registry.add(table.path))
        ours, bare = FlightService(service), BareServer(table.vectors.read(), args.batch_bytes)
        urls = {"graphsys": ours.url, "bare pyarrow": f"grpc://127.0.0.1:{bare.port}"}
        done = subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--client", *urls.values()],
            check=True, stdout=subprocess.PIPE, text=True, timeout=600,
        )  # fmt: skip
        ours.stop()
        bare.shutdown()
    found: dict[str, list[float]] = json.loads(done.stdout)
    if args.json:
        figures = {name: {n: found[f"{url} {n}"] for n in args.streams} for name, url in urls.items()}
        print(json.dumps({"gb_per_s": figures, "machine": machine(), "versions": versions(), "commit": commit()}))
        return
    print(f"{args.rows:,} x {args.dim} float32\n")
    print("| streams | graphsys GB/s | bare pyarrow GB/s | share |\n|---|---|---|---|")
    for streams in args.streams:
        mine, theirs = (found[f"{url} {streams}"] for url in urls.values())
        share = statistics.median(mine) / statistics.median(theirs)
        print(f"| {streams} | {shown(mine)} | {shown(theirs)} | {share:.0%} |")


def shown(values: list[float]) -> str:
    """Return median, least and most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch-bytes", type=int, default=BATCH_BYTES, help="Of the bare server's batches.")
    parser.add_argument("--work", type=Path, help="Folder for the table; the system's temporary one by default.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--client", nargs="+", default=[], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
