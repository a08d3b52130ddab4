"""Nearest neighbours in a large table: what the index takes to build, what it finds, and what HTTP adds.

The table's vectors lie near a plane of few dimensions, with clusters, as embeddings do; ``--spread`` 0 makes them
uniform, which no graph can search. Recall is that of questions which the index was not calibrated on. A batch of 64
queries is timed in turns: usearch alone, the index in process, and a server in another process (JSON and Arrow).

    python benchmarks/serving_search.py --work /big/folder            # 1 M x 128 float32, some ten minutes
    python benchmarks/serving_search.py --work /big/folder --rows 100000
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from serving import served
from serving_tables import BLOCK, made_table, random_blocks

from graphsys.core.machine import commit, machine, versions
from graphsys.deploy.serving.index import IndexSettings, SearchIndex, open_index
from graphsys.storage.embeddings import EmbeddingTable

Vectors = npt.NDArray[np.float32]

CLUSTERS = 2000
PLANE = 16  # dimensions that the clusters differ in
K = 10
ARROW = "application/vnd.apache.arrow.stream"


def clustered_blocks(rows: int, dim: int, spread: float, seed: int = 0) -> Iterator[Vectors]:
    """Yield vectors [*, dim] float32: a cluster's centre, a place around it, and a little of every dimension."""
    random = np.random.default_rng(seed)
    plane = random.standard_normal((PLANE, dim), np.float32)
    centres = random.standard_normal((CLUSTERS, PLANE), np.float32) * spread
    for start in range(0, rows, BLOCK):
        size = min(BLOCK, rows - start)
        place = centres[random.integers(0, CLUSTERS, size)] + random.standard_normal((size, PLANE), np.float32)
        yield place @ plane + 0.1 * random.standard_normal((size, dim), np.float32)


def questions(table: EmbeddingTable, count: int) -> Vectors:
    """Return rows of the table, moved by a tenth of their length."""
    random = np.random.default_rng(17)
    rows = np.asarray(table.vectors.memmap()[random.choice(table.num_rows, count, replace=False)], np.float32)
    noise = random.standard_normal(rows.shape).astype(np.float32)
    moved: Vectors = rows + 0.1 * noise * np.linalg.norm(rows, axis=1, keepdims=True) / np.sqrt(table.dim)
    return moved


def recall(index: SearchIndex, query: Vectors) -> float:
    """Return the share of the exact answers' ids that the index finds."""
    _, found = index.search(query, K)
    _, true = index.search(query, K, exact=True)
    return float(np.mean([np.isin(ours, theirs).mean() for ours, theirs in zip(found, true, strict=True)]))


def timed(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return milliseconds of each call, taken in turns; the first turn warms up."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                found[name].append((time.perf_counter() - started) * 1e3)
    return found


def bare_call(index: SearchIndex, query: Vectors) -> Callable[[], object] | None:
    """Return usearch's own search for ``K`` neighbours, by the graph and the expansion of ``index``; None without."""
    graph = index._graph
    if graph is None:
        return None
    asked = graph._space.ask(query.astype(np.float64))
    threads = graph._threads
    return lambda: graph._index.search(asked, K, threads=threads)


def over_http(client: httpx.Client, query: Vectors) -> dict[str, Callable[[], object]]:
    """Return the same search over HTTP, as JSON and as Arrow."""
    body = json.dumps({"vectors": query.tolist(), "k": K}).encode()
    column = pa.FixedSizeListArray.from_arrays(pa.array(query.reshape(-1)), query.shape[1])
    batch = pa.record_batch({"vector": column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema.with_metadata({"graphsys.search": json.dumps({"k": K})})) as writer:
        writer.write_batch(batch)
    arrow = sink.getvalue().to_pybytes()

    def ask(content: bytes, kind: str) -> Any:
        reply = client.post("/v1/embeddings/search", content=content, headers={"Content-Type": kind, "Accept": kind})
        reply.raise_for_status()
        return reply.content

    return {"HTTP, JSON": lambda: ask(body, "application/json"), "HTTP, Arrow": lambda: ask(arrow, ARROW)}


def main() -> None:
    """Build, compare, and print a Markdown table or, with ``--json``, everything."""
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    rows, dim, spread = args.rows, args.dim, args.spread
    blocks = clustered_blocks(rows, dim, spread) if spread else random_blocks(rows, dim)
    table = made_table(args.work / f"search-{rows}-{dim}-{spread}.gs", rows, dim, blocks)
    started = time.perf_counter()
    index = open_index(table, IndexSettings())
    opened_s = time.perf_counter() - started
    figures: dict[str, Any] = {"index": index.content, "opened_s": opened_s}
    figures["recall"] = recall(index, questions(table, args.questions))
    query = questions(table, 64)
    calls: dict[str, Callable[[], object]] = {"in process": lambda: index.search(query, K)}
    if (bare := bare_call(index, query)) is not None:
        calls = {"usearch alone": bare, **calls}
    with served(table.path) as (_, port), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        figures["batch_ms"] = timed({**calls, **over_http(client, query)}, args.repeats)
    index.close()
    if args.json:
        print(json.dumps({**figures, "machine": machine(), "versions": versions(), "commit": commit()}))
        return
    print(f"{args.rows:,} x {args.dim} float32; index opened in {opened_s:.1f} s: {json.dumps(index.content)}")
    print(f"recall@{K} of {args.questions} questions: {figures['recall']:.4f}\n")
    print("| 64 queries, k = 10 | ms, median (least-most) | of the first |\n|---|---|---|")
    first = statistics.median(next(iter(figures["batch_ms"].values())))
    for name, values in figures["batch_ms"].items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.1f} ({min(values):.1f}-{max(values):.1f}) | {middle / first:.2f} |")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="Folder for tables and indices; they are kept.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--spread", type=float, default=2.0, help="Distance of clusters; 0: uniform vectors.")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
