"""Edges per second of an import from Parquet under a memory budget."""

import shutil
from pathlib import Path

from graphsys.bench.graph import drop_pages
from graphsys.bench.pack import at_disk_speed
from graphsys.bench.result import Measured
from graphsys.bench.setting import Setting
from graphsys.core.errors import InputError
from graphsys.core.progress import Progress
from graphsys.storage.disk_speed import measure_disk
from graphsys.storage.generate import DESCRIPTION
from graphsys.storage.importer import ImportOptions, import_graph
from graphsys.storage.open_source import open_source
from graphsys.storage.sources import SourceSpec


def measure_import(setting: Setting, progress: Progress) -> Measured:
    """Import the raw edges alone, once per round; the limit is the bytes that this moved, sequentially.

    Raises:
        InputError: The raw graph is not known, or is not one of ``graphsys generate``.
    """
    edges = _edges(setting)
    out = setting.work / "edges.gs"
    rounds, limits, peak = [], [], 0
    details: dict[str, float | str] = {}
    for _ in range(setting.rounds):
        drop_pages(edges)
        source = open_source(None, SourceSpec(edges=edges))
        summary = import_graph(source, out, ImportOptions(memory=setting.import_memory), progress=progress)
        speed = measure_disk(setting.work)
        report = summary.report
        count = sum(kind["edges_read"] for kind in summary.edges.values())
        read, written = report.device_bytes_read, report.device_bytes_written
        rounds.append(count / report.seconds)
        limits.append(count / at_disk_speed(read, written, speed))
        peak = max(peak, report.peak_rss_bytes)
        details = {
            "edges": count,
            "seconds": report.seconds,
            "device_bytes_read": read,
            "device_bytes_written": written,
            "memory": setting.import_memory,
            "sequential_read_bytes_s": speed.read_bytes_s,
            "sequential_write_bytes_s": speed.write_bytes_s,
            "limit_is": "the bytes that the import moved, at the sequential speeds of this run",
        }
        shutil.rmtree(out)
    limit = sum(limits) / len(limits)
    return Measured(rounds=tuple(rounds), limit=limit, details=details, peak_memory_bytes={"import": peak})


def _edges(setting: Setting) -> Path:
    if setting.raw is None:
        raise InputError("bench import needs the raw graph; name a folder of `graphsys generate` with --graph")
    if not (setting.raw / DESCRIPTION).is_file():
        raise InputError(f"bench import reads a folder of `graphsys generate`, and {setting.raw} is none")
    return setting.raw / "edges"
