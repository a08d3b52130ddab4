"""One benchmark from its options to its line."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphsys.bench.graph import find_graph
from graphsys.bench.isolate import run_part
from graphsys.bench.peers import SCRIPTS, PeerFigures, run_peers
from graphsys.bench.registry import BENCHES, Bench
from graphsys.bench.result import BenchLine, Measured, merged
from graphsys.bench.setting import SIZES, Setting, Size
from graphsys.core.errors import ConfigError
from graphsys.core.machine import commit, machine
from graphsys.core.progress import SILENT, Progress
from graphsys.storage.files import disk_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What a user may choose; None takes what the size stands for."""

    size: Size = "small"
    graph: Path | None = None  # a store or a raw graph
    work: Path  # where graphs are kept and results lie while a benchmark runs
    fanouts: tuple[int, ...] = (10, 10, 10)
    batch_size: int | None = None
    memory: int | None = None  # bytes; of import, too
    rounds: int = 3
    threads: int = 0
    peers: bool = True
    envs: Path = SCRIPTS
    peer_seconds: float | None = None


def run_bench(name: str, options: BenchOptions, progress: Progress = SILENT) -> BenchLine:
    """Measure one benchmark, ours and the peers'.

    Raises:
        ConfigError: There is no such benchmark, or an option is out of range.
        ArtefactError, InputError: There is no graph to measure on.
        GraphsysError: A part of ours failed. A peer that fails is missing instead.
    """
    bench = _known(name)
    _check(options)
    defaults = SIZES[options.size]
    with _folder(options.work) as work:
        store, raw = find_graph(options.graph, options.size, options.work, progress)
        setting = Setting(
            size=options.size,
            store=store,
            raw=raw,
            work=work,
            fanouts=options.fanouts,
            batch_size=options.batch_size or defaults.batch_size,
            memory=options.memory or defaults.memory,
            import_memory=options.memory or defaults.import_memory,
            rounds=options.rounds,
            threads=options.threads,
            apart=defaults.apart,
        )
        ours, limits = _measure(bench, setting, progress)
        seconds = options.peer_seconds or defaults.peer_seconds
        wanted = bench.peers if options.peers else ()
        peers = run_peers(wanted, setting, options.envs, seconds, progress)
        if bench.again and peers.values:
            ours = merged([ours, _measure(bench, setting, progress)[0]])
    return _line(bench, setting, ours, peers, limits, asked=options.peers)


def _known(name: str) -> Bench:
    if name not in BENCHES:
        raise ConfigError(f"there is no benchmark '{name}'; choose one of {', '.join(BENCHES)}")
    return BENCHES[name]


def _check(options: BenchOptions) -> None:
    bad = [fanout for fanout in options.fanouts if fanout == 0 or fanout < -1]
    if bad or not options.fanouts:
        found = bad[0] if bad else "empty"
        raise ConfigError(f"--fanouts is {found}; give a number per hop, 1 or more or -1 for all, such as 15,10,5")
    least = {"--rounds": options.rounds, "--batch-size": options.batch_size, "--peer-seconds": options.peer_seconds}
    for option, value in least.items():
        if value is not None and value <= 0:
            raise ConfigError(f"{option} is {value}; give more than 0")


@contextmanager
def _folder(work: Path) -> Iterator[Path]:
    """Make a folder of this benchmark's own below ``work``; it is gone afterwards."""
    with disk_errors("write", work):
        work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="run-", dir=work))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(bench: Bench, setting: Setting, progress: Progress) -> tuple[Measured, dict[str, str]]:
    found, limits = {}, {}
    for part in bench.parts:
        found[part.name], limits[part.name] = run_part(bench.name, part, setting, progress)
    if bench.summarize is not None:
        return bench.summarize(found), limits
    return next(iter(found.values())), limits


def _line(
    bench: Bench, setting: Setting, ours: Measured, peers: PeerFigures, limits: dict[str, str], *, asked: bool
) -> BenchLine:
    return BenchLine(
        name=bench.name,
        value=ours.value,
        unit=bench.unit,
        better=bench.better,
        spread=(min(ours.rounds), max(ours.rounds)),
        peers=peers.values,
        missing=tuple(peers.missing if asked else (peer.name for peer in bench.peers)),
        limit=ours.limit,
        machine=machine(),
        commit=commit(),
        config=_config(setting, limits),
        details={**ours.details, "rounds": list(ours.rounds), "peers": peers.details},
        peak_memory_bytes={stage: nbytes for stage, nbytes in ours.peak_memory_bytes.items() if nbytes},
    )


def _config(setting: Setting, limits: dict[str, str]) -> dict[str, Any]:
    store, name = setting.open_store()
    info = store.node_types[name]
    values = setting.as_dict()
    del values["work"]
    return {
        **values,
        "nodes": info.num_nodes,
        "edges": store.edge_types[store.edge_type_within(name)]["num_edges"],
        "features": info.num_features,
        "train_nodes": int(store.split(name, "train").size),
        "store_fingerprint": store.fingerprint,
        "memory_limit": limits,
    }
