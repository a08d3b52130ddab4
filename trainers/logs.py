"""What a training says while it runs: ``metrics.jsonl`` for machines, TensorBoard for people.

A resumed run cuts the log back to its checkpoint first, so no line is lost or doubled. The checkpoint counts lines, not
bytes: a line's length depends on seconds measured, and a checkpoint must not.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from graphsys.storage.files import disk_errors, write_bytes
from graphsys.storage.run_log import LOG_NAME, read_lines
from graphsys.trainers.board import Board

TENSORBOARD_NAME = "tensorboard"


class Log(Protocol):
    """Where a training says what it measures."""

    @property
    def lines(self) -> Sequence[dict[str, Any]]:
        """What was logged before."""

    @property
    def num_lines(self) -> int:
        """Lines logged so far, over all calls."""

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Append one line."""

    def flush(self) -> None:
        """Return when every line is on the device."""


class SilentLog:
    """The log of a worker that does not lead."""

    lines: Sequence[dict[str, Any]] = ()
    num_lines = 0

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


class RunLog:
    """Appends to the logs of one run."""

    def __init__(self, folder: Path, *, num_lines: int, step: int) -> None:
        """Open the logs below ``folder``, cut back to where a checkpoint stood.

        Args:
            folder: Made when missing.
            num_lines: Lines of ``metrics.jsonl`` to keep.
            step: Optimizer steps taken; TensorBoard hides what was logged after it.
        """
        self.path = folder / LOG_NAME
        self.lines = read_log(folder)[:num_lines]  # what was logged before, as dicts
        self.num_lines = len(self.lines)
        write_bytes(self.path, b"".join(_encode(line) for line in self.lines))
        with disk_errors("write", self.path):
            self._file = self.path.open("ab")
            self._board = Board(folder / TENSORBOARD_NAME, purge_step=step + 1)

    def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Append one line, and its numbers to TensorBoard under ``kind``."""
        with disk_errors("write", self.path):
            self._file.write(_encode({"kind": kind, "step": step, **values}))
            self._file.flush()
            for name, number in _numbers(values):
                self._board.add_scalar(f"{kind}/{name}", number, step)
        self.num_lines += 1

    def flush(self) -> None:
        """Return when every line is on the device; a checkpoint that counts them may be written then."""
        with disk_errors("write", self.path):
            os.fsync(self._file.fileno())
            self._board.flush()

    def close(self) -> None:
        """Close both logs."""
        with disk_errors("write", self.path):
            self._file.close()
            self._board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the whole lines of the ``metrics.jsonl`` in ``folder``; none when there is no such file."""
    return read_lines(folder / LOG_NAME)


def _encode(line: dict[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _numbers(values: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            found.append((f"{prefix}{name}", float(value)))
    return found
