"""What a figure was taken on: the machine, the code."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import graphsys

CHECKOUT = Path(graphsys.__file__).resolve().parents[1]


def machine() -> dict[str, Any]:
    """Return the processor, cores, memory, kernel and Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """Return the commit of the checkout that runs, with "+" when files differ from it; None outside a checkout."""
    head = _git("rev-parse", "HEAD")
    if head is None or not (CHECKOUT / ".git").exists():
        return None
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(CHECKOUT), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
