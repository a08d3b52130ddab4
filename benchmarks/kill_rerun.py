"""Kills the whole way with SIGKILL at random moments, reruns it each time, and compares with an uninterrupted run.

The commands import, train, evaluate and embed run as processes of their own. Moments are random fractions, from a fixed
seed, of the time that each command took uninterrupted. A round goes the whole way in a fresh folder and kills every
command up to three times before it may end; rounds follow until enough kills have hit, and every command was hit. After
each round the final weights and the embedding table must be those of the uninterrupted run, byte by byte, and all files
must verify.

    .venv/bin/python benchmarks/kill_rerun.py --nodes 200000 --edges 3200000 --kills 20 --work /path/on/a/disk
"""

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

KILLS_PER_COMMAND = 3  # in one round; then the command runs to its end, so that every round makes progress
COMMANDS = ("import", "train", "evaluate", "embed")

# A fork server that holds these already starts a command in milliseconds, so that kills hit the work and not the
# loading of libraries.
PRELOADED = ["graphsys.cli.main", "graphsys.storage.importer", "graphsys.trainers.fit", "graphsys.trainers.embed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The whole way on one raw graph, in a folder of its own."""

    raw: Path
    folder: Path
    run: dict[str, Any]  # a run file without store and out
    memory: str = "256MiB"

    @property
    def store(self) -> Path:
        return self.folder / "graph.gs"

    @property
    def out(self) -> Path:
        return self.folder / "run"

    @property
    def table(self) -> Path:
        return self.folder / "embeddings.gs"

    def write_run_file(self) -> Path:
        """Write the run file and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "run.yaml"
        tree = {"store": str(self.store), "out": str(self.out), "memory": self.memory, **self.run}
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return path

    def argv(self, command: str) -> list[str]:
        """Return the arguments of one command."""
        run = str(self.folder / "run.yaml")
        return {
            "import": ["import", str(self.raw), "--out", str(self.store), "--memory", self.memory, "--quiet"],
            "train": ["train", run, "--quiet"],
            "evaluate": ["evaluate", run, "--quiet"],
            "embed": ["embed", run, "--out", str(self.table), "--quiet"],
        }[command]


@dataclass(slots=True)
class Tally:
    """How many kills hit which command, and how often a command ended before its kill."""

    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    rounds: int = 0


def run_whole(job: Job) -> dict[str, float]:
    """Go the whole way without a kill; return the seconds of each command."""
    job.write_run_file()
    _start(["--version"]).join()  # the fork server loads its libraries before the clock runs
    return {command: _finish(job, command) for command in COMMANDS}


def run_round(job: Job, seconds: dict[str, float], chance: random.Random, tally: Tally) -> None:
    """Go the whole way in ``job.folder``, killing each command up to three times on the way."""
    job.write_run_file()
    for command in COMMANDS:
        for attempt in range(KILLS_PER_COMMAND):
            # A command that resumes has less left to do each time; later kills come earlier, so that they still hit.
            if not _killed(job, command, chance.random() * seconds[command] / (1 + attempt)):
                tally.missed[command] += 1
                break
            tally.kills[command] += 1
        _finish(job, command)
    tally.rounds += 1


def rounds(
    base: Path, raw: Path, run: dict[str, Any], *, kills: int, seed: int, tally: Tally
) -> Iterator[tuple[Job, Job]]:
    """Yield (uninterrupted job, job of a finished round) until ``kills`` kills have hit, at least one each command."""
    reference = Job(raw=raw, folder=base / "reference", run=run)
    seconds = run_whole(reference)
    print(f"uninterrupted: {', '.join(f'{name} {value:.2f} s' for name, value in seconds.items())}", file=sys.stderr)
    chance = random.Random(seed)
    while tally.kills.total() < kills or len(tally.kills) < len(COMMANDS):
        job = Job(raw=raw, folder=base / f"round-{tally.rounds}", run=run)
        run_round(job, seconds, chance, tally)
        print(f"round {tally.rounds}: kills {dict(tally.kills)}, ended before {dict(tally.missed)}", file=sys.stderr)
        yield reference, job


def differences(reference: Job, job: Job) -> list[str]:
    """Return what differs between two finished jobs: store, weights, table; and what was left behind."""
    import torch

    from graphsys.storage.verify import verify
    from graphsys.trainers.checkpoint import final_checkpoint, load_checkpoint

    found = []
    weights, expected = (load_checkpoint(final_checkpoint(each.out)).weights for each in (job, reference))
    if weights.keys() != expected.keys() or not all(torch.equal(weights[name], expected[name]) for name in expected):
        found.append("final weights")
    for folder in ("store", "table"):
        found += _differing_files(getattr(reference, folder), getattr(job, folder))
    found += [f"left behind: {path}" for path in job.folder.rglob(".*")]
    verify(job.folder)
    return found


def _differing_files(reference: Path, found: Path) -> list[str]:
    files = {path.relative_to(reference) for path in reference.rglob("*") if path.is_file()}
    files |= {path.relative_to(found) for path in found.rglob("*") if path.is_file()}
    return [f"{found.name}/{name}" for name in sorted(files) if not _equal(reference / name, found / name)]


def _equal(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _finish(job: Job, command: str) -> float:
    started = time.perf_counter()
    process = _start(job.argv(command))
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{command} in {job.folder} ended with {process.exitcode}")
    return time.perf_counter() - started


def _killed(job: Job, command: str, after_s: float) -> bool:
    process = _start(job.argv(command))
    process.join(after_s)
    process.kill()
    process.join()
    if process.exitcode not in (0, -9):
        raise RuntimeError(f"{command} in {job.folder} ended with {process.exitcode}, neither done nor killed")
    return process.exitcode == -9


def _start(argv: list[str]) -> multiprocessing.context.ForkServerProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_command, args=(argv,))
    process.start()
    return process


def _command(argv: list[str]) -> None:
    from graphsys.cli.main import main

    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        raise SystemExit(main(argv))


def main() -> int:
    options = _arguments()
    raw = options.work / "raw"
    if not raw.exists():
        size = [f"--{name}={getattr(options, name)}" for name in ("nodes", "edges", "features")]
        process = _start(["generate", *size, "--out", str(raw)])
        process.join()
    faults: list[str] = []
    tally = Tally()
    run = run_file(options)
    for reference, job in rounds(options.work, raw, run, kills=options.kills, seed=options.seed, tally=tally):
        faults += differences(reference, job)
    result = {"kills": dict(tally.kills), "missed": dict(tally.missed), "rounds": tally.rounds, "differences": faults}
    print(json.dumps(result))
    return 1 if faults else 0


def run_file(options: argparse.Namespace) -> dict[str, Any]:
    """Return a run that has several windows, checkpoints and validations on the way."""
    return {
        "sampler": {"fanouts": [5, 5], "batch_size": options.batch_size},
        "pack": {"mode": "packed", "window": 8},
        "trainer": {"epochs": 3, "checkpoint_every": 5},
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    for name, value in (("nodes", 200_000), ("edges", 3_200_000), ("features", 64), ("batch-size", 1024)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
