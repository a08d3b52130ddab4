"""Which calls a training took: when each started, where, with what command, versions and commit."""

import json
from datetime import UTC, datetime
from pathlib import Path

from graphsys.core.machine import command, commit, machine, versions
from graphsys.storage.files import write_bytes
from graphsys.storage.run_log import CALLS_NAME, read_lines


def record_call(folder: Path, *, step: int, device: str) -> None:
    """Append a line about this call to ``calls.jsonl`` in the logs' ``folder``; the earlier lines stay.

    Args:
        step: Where the call takes the training up.
        device: Where the model runs.
    """
    line = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": step,
        "command": command(),
        "commit": commit(),
        "versions": versions(),
        "machine": {**machine(), "device": device},
    }
    path = folder / CALLS_NAME
    write_bytes(path, b"".join(json.dumps(item).encode() + b"\n" for item in [*read_lines(path), line]))
