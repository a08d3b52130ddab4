"""Memory cgroups: what makes sure that features which should not fit into memory do not."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryGroup:
    """A memory cgroup, or none where the system lets us make none."""

    path: Path | None
    version: int
    nbytes: int  # its limit

    def entering(self, argv: list[str]) -> list[str]:
        """Return a command that enters the group before it becomes ``argv``, so that every page is charged to it."""
        if self.path is None:
            return argv
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.path / "cgroup.procs"), *argv]

    @property
    def enforced(self) -> bool:
        """Whether the kernel holds the limit."""
        return self.path is not None

    def peak_bytes(self) -> int | None:
        """Return the most memory the group held, page cache included; None where the kernel does not say."""
        if self.path is None:
            return None
        file = self.path / ("memory.max_usage_in_bytes" if self.version == 1 else "memory.peak")
        return int(file.read_text()) if file.is_file() else None


@contextmanager
def memory_group(nbytes: int) -> Iterator[MemoryGroup]:
    """Make a memory cgroup of ``nbytes`` and remove it when the block ends; without the right to, yield one of none."""
    version = 1 if (_V1 / "memory.limit_in_bytes").exists() else 2
    path = (_V1 if version == 1 else _V2) / f"graphsys-bench-{os.getpid()}-{time.monotonic_ns()}"
    try:
        _make(path, version, nbytes)
    except OSError:
        if path.is_dir():
            path.rmdir()
        yield MemoryGroup(path=None, version=version, nbytes=nbytes)
        return
    try:
        yield MemoryGroup(path=path, version=version, nbytes=nbytes)
    finally:
        _remove(path)


def _make(path: Path, version: int, nbytes: int) -> None:
    path.mkdir()
    if version == 1:
        (path / "memory.limit_in_bytes").write_text(str(nbytes))
    else:
        (path / "memory.max").write_text(str(nbytes))
        (path / "memory.swap.max").write_text("0")


def _remove(path: Path) -> None:
    """Remove a group whose last process has ended; the kernel may take a moment to notice."""
    for _ in range(50):
        try:
            path.rmdir()
        except OSError:
            time.sleep(0.1)
        else:
            return
