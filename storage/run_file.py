"""The resolved run file beside a run's results: plain YAML that ends with a checksum of its own text."""

from pathlib import Path
from typing import Any

import xxhash
import yaml

from graphsys.core.config import RunConfig
from graphsys.core.errors import CorruptError
from graphsys.storage.files import disk_errors, write_bytes

RUN_FILE_NAME = "config.yaml"
RESULT_NAME = "result.json"
CUT_NAME = "cut.json"  # which layers each stage of a pipeline runs
PLAN_NAME = "plan.json"  # what the run was predicted to cost
_SEAL = b"# xxh3_128: "


def write_run_file(path: Path, run: RunConfig) -> None:
    """Write every key of ``run``, defaults too, so that ``graphsys train`` of that file repeats the run."""
    text = yaml.safe_dump(run.resolved(), sort_keys=False, allow_unicode=True).encode()
    write_bytes(path, text + _SEAL + xxhash.xxh3_128(text).hexdigest().encode() + b"\n")


def verify_run_file(path: Path) -> dict[str, Any]:
    """Return the values that :func:`write_run_file` wrote.

    Raises:
        CorruptError: A byte differs from what was written.
    """
    with disk_errors("read", path):
        raw = path.read_bytes()
    text, _, seal = raw.rpartition(_SEAL)
    if seal != xxhash.xxh3_128(text).hexdigest().encode() + b"\n":
        raise CorruptError(
            f"{path} was changed after the run wrote it: its text does not match the checksum in its last line. "
            f"Copy it elsewhere to edit it, and run the job again to write it anew"
        )
    values: dict[str, Any] = yaml.safe_load(text)
    return values
