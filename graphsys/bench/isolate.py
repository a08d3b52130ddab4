"""Runs one part of a benchmark: here, or in a process of its own inside a memory cgroup."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from graphsys.bench.cgroup import memory_group
from graphsys.bench.result import Measured
from graphsys.bench.setting import INTERPRETER_BYTES, Setting
from graphsys.core.errors import GraphsysError
from graphsys.core.progress import Progress

Measure = Callable[[Setting, Progress], Measured]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A figure of ours that is measured by itself."""

    name: str
    measure: Measure
    memory: Callable[[Setting], int] | None = None  # bytes of its memory cgroup without the interpreter; None: none


def run_part(bench: str, part: Part, setting: Setting, progress: Progress) -> tuple[Measured, str]:
    """Measure ``part``; return what it found and how its memory was limited.

    Raises:
        GraphsysError: It failed; with a process of its own, the message ends with what that process said.
    """
    progress.message(f"{bench}: measuring {part.name}")
    if not setting.apart:
        return part.measure(setting, progress), "none: the graph is small"
    if part.memory is None:
        return _in_process(bench, part, setting, None), "none: all data are in memory"
    nbytes = part.memory(setting) + INTERPRETER_BYTES
    with memory_group(nbytes) as group:
        found = _in_process(bench, part, setting, group.entering)
        if not group.enforced:
            return found, "none: no right to make a memory cgroup; reads pass the page cache"
        peak = group.peak_bytes()
        peaks = found.peak_memory_bytes | ({} if peak is None else {f"cgroup of {part.name}": peak})
        return replace(found, peak_memory_bytes=peaks), f"cgroup of {nbytes} bytes"


def _in_process(
    bench: str, part: Part, setting: Setting, entering: Callable[[list[str]], list[str]] | None
) -> Measured:
    argv = [sys.executable, "-m", "graphsys.bench.worker", bench, part.name, json.dumps(setting.as_dict())]
    values = run_json(f"{bench}, {part.name}", entering(argv) if entering else argv)
    return Measured.from_dict(values)


def run_json(what: str, argv: list[str], *, folder: Path | None = None, timeout: float | None = None) -> dict[str, Any]:
    """Run a program in ``folder`` and return the JSON object in the last line of its standard output.

    Raises:
        GraphsysError: It ended with an error, did not end within ``timeout`` seconds, or printed something else.
    """
    # Threads of OpenMP that spin take the cores from everybody else; the same rule for us and for all peers.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=timeout
        )
    except subprocess.TimeoutExpired as error:
        raise GraphsysError(f"{what} did not end within {timeout:.0f} s") from error
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise GraphsysError(f"{what} ended with code {done.returncode}: {said[-1] if said else 'it said nothing'}")
    values: dict[str, Any] = json.loads(lines[-1])
    return values
