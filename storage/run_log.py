"""Reads the line-wise logs of a run; needs neither torch nor TensorBoard."""

import json
from pathlib import Path
from typing import Any

from graphsys.storage.files import disk_errors

LOG_NAME = "metrics.jsonl"  # what the training logged: steps, epochs, checkpoints
CALLS_NAME = "calls.jsonl"  # the calls it took


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the whole JSON lines of a log; none when there is no such file.

    Half a line, which a kill may leave, ends the log: what follows it was never counted.
    """
    if not path.exists():
        return []
    with disk_errors("read", path):
        raw = path.read_bytes()
    lines: list[dict[str, Any]] = []
    for text in raw.splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
