"""What a figure was measured with: machine, versions, commit, command."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import graphsys

_LIBRARIES = ("torch", "torch-geometric", "numpy", "numba", "pyarrow", "zarr")
_AS_MODULE = ["python", "-m", "graphsys.cli"]
CHECKOUT = Path(graphsys.__file__).resolve().parents[1]


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine() -> dict[str, Any]:
    """Return processor, cores that this process may use, memory in bytes, and the system, as plain JSON values."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, graphsys and the libraries that compute or write; nothing is imported for it."""
    found = {"python": platform.python_version(), "graphsys": graphsys.__version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Return the commit of the checkout that graphsys runs from, with ``+`` when files differ from it; else None."""
    if not (CHECKOUT / ".git").exists():
        return None
    head, changed = _git("rev-parse", "--short=12", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return None if head is None else head + ("+" if changed else "")


def command() -> str:
    """Return the command line of this process, as a shell would take it."""
    program = Path(sys.argv[0]).name
    return shlex.join([*(_AS_MODULE if program == "__main__.py" else [program]), *sys.argv[1:]])


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or a checkout that it refuses to read
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
