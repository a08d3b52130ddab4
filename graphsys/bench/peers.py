"""Runs the peers: other systems, each in an environment of its own, on the same store and under the same limits."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from graphsys.bench.cgroup import memory_group
from graphsys.bench.graph import drop_pages
from graphsys.bench.isolate import run_json
from graphsys.bench.sampler import num_threads
from graphsys.bench.setting import HIDDEN, HOST_CACHE, INTERPRETER_BYTES, PEER_BYTES, Setting
from graphsys.core.errors import GraphsysError
from graphsys.core.machine import CHECKOUT
from graphsys.core.progress import Progress

SCRIPTS = CHECKOUT / "benchmarks" / "peers"
OWN = "own"  # a peer that runs in our own environment
_STARTUP_S = 300.0  # reading the topology, making the graph, filling a cache
_ID_BYTES = 8  # all peers take int64 ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One peer's part in a benchmark."""

    name: str  # as the result shows it
    script: str  # module below benchmarks/peers, and name of its environment unless ``env`` says otherwise
    task: str  # sample, load, step or epoch
    env: str = ""
    options: tuple[str, ...] = ()
    on_disk: bool = False  # whether it reads features from the disk, so that its memory must be limited


@dataclass(slots=True, kw_only=True)
class PeerFigures:
    """What the peers gave."""

    values: dict[str, float] = field(default_factory=dict)  # median of the rounds, by peer
    missing: list[str] = field(default_factory=list)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)  # by peer: rounds, how it was measured, or why not


def find_python(peer: Peer, envs: Path) -> Path | None:
    """Return the interpreter of a peer's environment below ``envs``, or this one where it serves as well."""
    if peer.env == OWN:
        return Path(sys.executable)
    name = peer.env or peer.script
    python = envs / f"env-{name}" / "bin" / "python"
    if python.is_file():
        return python
    return Path(sys.executable) if name == "dgl" and find_spec("dgl") is not None else None


def run_peers(peers: Iterable[Peer], setting: Setting, envs: Path, seconds: float, progress: Progress) -> PeerFigures:
    """Measure every peer that is installed, one after the other; a peer that fails is missing, and the details say why.

    Args:
        envs: folder of the environments.
        seconds: how long each is timed once it is warm.
    """
    found = PeerFigures()
    for peer in peers:
        python = find_python(peer, envs)
        if python is None or not (SCRIPTS / f"{peer.script}.py").is_file():
            found.missing.append(peer.name)
            continue
        progress.message(f"measuring {peer.name}")
        try:
            values = _run(peer, python, setting, seconds)
        except GraphsysError as error:
            found.missing.append(peer.name)
            found.details[peer.name] = {"error": str(error)}
            continue
        found.values[peer.name] = median(values["rounds"])
        found.details[peer.name] = values
    return found


def _run(peer: Peer, python: Path, setting: Setting, seconds: float) -> dict[str, Any]:
    store, name = setting.open_store()
    argv = [
        str(python), "-m", f"peers.{peer.script}",
        "--task", peer.task,
        "--store", str(setting.store.resolve()),
        "--fanouts", ",".join(map(str, setting.fanouts)),
        "--batch-size", str(setting.batch_size),
        "--threads", str(num_threads(setting)),
        "--hidden", str(HIDDEN),
        "--seconds", str(seconds),
        *peer.options,
    ]  # fmt: skip
    timeout = _STARTUP_S + 10 * seconds
    if not (peer.on_disk and setting.apart):
        return run_json(peer.name, argv, folder=SCRIPTS.parent, timeout=timeout)
    info = store.node_types[name]
    edges = store.edge_types[store.edge_type_within(name)]["num_edges"]
    cache = int(HOST_CACHE * info.num_nodes * info.num_features * 4) if "--cache" in peer.options else 0
    nbytes = _ID_BYTES * (info.num_nodes + edges) + PEER_BYTES + INTERPRETER_BYTES + cache
    drop_pages(setting.store)
    with memory_group(nbytes) as group:
        values = run_json(peer.name, group.entering(argv), folder=SCRIPTS.parent, timeout=timeout)
        limit = f"cgroup of {nbytes} bytes" if group.enforced else "none: no right to make a memory cgroup"
        return {**values, "memory_limit": limit, "cgroup_peak_bytes": group.peak_bytes()}
