"""A graph bigger than the memory goes the whole way, each stage in a memory cgroup of its own.

Prints, per stage, seconds, device bytes, useful bytes, peak resident set, the cgroup's peak and how often the kernel
killed for want of memory; as a table, and as one JSON line with the machine, the commit and the config.

    .venv/bin/python benchmarks/out_of_core.py --nodes 4000000 --edges 64000000 --features 128 --work /path/on/a/disk

Needs the right to make memory cgroups (root, version 1 or 2); ``--no-cgroup`` runs without.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from graphsys.core.units import format_bytes, format_seconds, parse_bytes

V1 = Path("/sys/fs/cgroup/memory")
V2 = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A memory cgroup; processes enter it by writing their id to ``procs``."""

    path: Path
    version: int

    @property
    def procs(self) -> Path:
        return self.path / "cgroup.procs"

    def peak_bytes(self) -> int | None:
        """Most memory the group held, page cache included; None where the kernel does not say."""
        file = self.path / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        return int(file.read_text()) if file.is_file() else None

    def oom_kills(self) -> int:
        """Processes that the kernel killed for want of memory in the group."""
        text = (self.path / ("memory.oom_control" if self.version == 1 else "memory.events")).read_text()
        fields = dict(line.split() for line in text.splitlines())
        return int(fields.get("oom_kill", 0))


@contextmanager
def memory_limit(nbytes: int) -> Iterator[Limit]:
    """Make a fresh memory cgroup, and remove it when the block ends."""
    version = 1 if (V1 / "memory.limit_in_bytes").exists() else 2
    path = (V1 if version == 1 else V2) / f"graphsys-{os.getpid()}-{time.monotonic_ns()}"
    try:
        path.mkdir()
    except OSError as error:
        raise SystemExit(
            f"cannot make the memory cgroup {path}: {error.strerror}; run as root, or pass --no-cgroup"
        ) from error
    try:
        if version == 1:
            (path / "memory.limit_in_bytes").write_text(str(nbytes))
        else:
            (path / "memory.max").write_text(str(nbytes))
            (path / "memory.swap.max").write_text("0")
        yield Limit(path=path, version=version)
    finally:
        path.rmdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one stage cost, as seen from outside the process."""

    stage: str
    seconds: float  # the whole process, start of the interpreter included
    peak_rss_bytes: int
    cgroup_peak_bytes: int | None
    oom_kills: int
    result: dict[str, Any]  # what the command printed with --json

    @property
    def report(self) -> dict[str, Any]:
        """The stage's own figures."""
        found: dict[str, Any] = self.result["report"] if "report" in self.result else self.result["stages"][self.stage]
        return found


def run_stage(stage: str, argv: list[str], limit: Limit | None) -> Outcome:
    """Run one graphsys command; stop the benchmark when it fails."""
    program = [sys.executable, "-m", "graphsys.cli", *argv, "--json"]
    if limit is not None:
        # The shell enters the group before it becomes the program, so that every page is charged to it.
        program = ["sh", "-c", f'echo $$ > {limit.procs} && exec "$@"', "sh", *program]
    print(f"-- {stage}: graphsys {' '.join(argv)}", file=sys.stderr, flush=True)
    started = time.perf_counter()
    process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    kills = limit.oom_kills() if limit else 0
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if code != 0:
        raise SystemExit(
            f"{stage} ended with {code} after {format_seconds(seconds)} ({kills} kills for want of memory)"
        )
    return Outcome(
        stage=stage,
        seconds=seconds,
        peak_rss_bytes=usage.ru_maxrss * 1024,
        cgroup_peak_bytes=limit.peak_bytes() if limit else None,
        oom_kills=kills,
        result=json.loads(text),
    )


def stages(options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the arguments of each stage; the raw graph exists already."""
    work = options.work
    run = str(work / "run.yaml")
    raw = options.raw or work / "raw"
    yield "import", ["import", str(raw), "--out", str(work / "graph.gs"), "--memory", options.memory, "--overwrite"]
    for stage in ("sample", "pack", "train"):
        yield stage, [stage, run]
    # Training ends with an evaluation; this one does all of it again, alone in its group.
    yield "evaluate", ["evaluate", run, "--overwrite"]
    yield "embed", ["embed", run, "--out", str(work / "embeddings.gs"), "--overwrite"]


def run_config(options: argparse.Namespace) -> dict[str, Any]:
    """Return the run file."""
    return {
        "store": str(options.work / "graph.gs"),
        "out": str(options.work / "run"),
        "memory": options.memory,
        "sampler": {"fanouts": options.fanouts, "batch_size": options.batch_size},
        "pack": {"mode": options.mode},
        "model": {"name": "sage", "hidden": options.hidden},
        "trainer": {"epochs": options.epochs, "checkpoint_every": 50},
    }


def main() -> int:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.raw is None and not (options.work / "raw").exists():
        size = [f"--{name}={getattr(options, name)}" for name in ("nodes", "edges", "features", "classes", "seed")]
        run_stage("generate", ["generate", *size, "--out", str(options.work / "raw")], None)
    (options.work / "run.yaml").write_text(yaml.safe_dump(run_config(options), sort_keys=False))
    outcomes = []
    for stage, argv in stages(options):
        if options.no_cgroup:
            outcomes.append(run_stage(stage, argv, None))
        else:
            with memory_limit(parse_bytes(options.cgroup)) as limit:
                outcomes.append(run_stage(stage, argv, limit))
    print_table(outcomes)
    print(json.dumps(record(options, outcomes)))
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for graph, store and results")
    parser.add_argument("--raw", type=Path, help="raw graph to import; generated below --work when left out")
    for name, value in (("nodes", 4_000_000), ("edges", 64_000_000), ("features", 128), ("classes", 16), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--memory", default="1GiB", help="memory of the run and of import")
    parser.add_argument("--cgroup", default="1.75GiB", help="limit of each stage's memory cgroup")
    parser.add_argument("--no-cgroup", action="store_true")
    parser.add_argument("--mode", default="packed")
    parser.add_argument("--fanouts", type=lambda text: [int(part) for part in text.split(",")], default=[10, 10])
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    return parser.parse_args()


def print_table(outcomes: list[Outcome]) -> None:
    head = ("stage", "seconds", "whole process, s", "disk read", "disk written", "useful bytes")
    print(f"| {' | '.join(head)} | peak resident set | cgroup peak | kills |")
    print(f"|{'---|' * (len(head) + 3)}")
    for outcome in outcomes:
        own = outcome.report
        figures = (own[name] for name in ("device_bytes_read", "device_bytes_written", "useful_bytes"))
        peak = "-" if outcome.cgroup_peak_bytes is None else format_bytes(outcome.cgroup_peak_bytes)
        cells = [outcome.stage, f"{own['seconds']:.1f}", f"{outcome.seconds:.1f}", *map(format_bytes, figures)]
        print(f"| {' | '.join([*cells, format_bytes(outcome.peak_rss_bytes), peak, str(outcome.oom_kills)])} |")


def record(options: argparse.Namespace, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return everything needed to judge and to repeat the figures."""
    return {
        "benchmark": "out_of_core",
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
        "config": run_config(options),
        "machine": machine(),
        "stages": [asdict(outcome) for outcome in outcomes],
    }


def machine() -> dict[str, Any]:
    model = [line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {
        "cpu": model[0] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "python": platform.python_version(),
        "commit": commit or None,
    }


if __name__ == "__main__":
    raise SystemExit(main())
