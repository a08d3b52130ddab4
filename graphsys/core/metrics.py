"""What a stage cost: seconds, device bytes, useful bytes, peak memory."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

_STATUS = Path("/proc/self/status")
_BLOCK_DEVICES = Path("/sys/dev/block")
_SECTOR = 512  # bytes; the unit of the block layer, whatever the device's own


def device_bytes() -> tuple[int, int]:
    """Return (read, written) bytes that this process and its children caused at the block device.

    Page-cache hits do not count. The kernel adds a child's sums to its parent's when the child ends, so the figures
    never fall.

    Source:
        proc(5), /proc/pid/io, fields read_bytes and write_bytes.
    """
    sums = [_process_bytes("self")]
    for child in psutil.Process().children(recursive=True):
        try:
            sums.append(_process_bytes(str(child.pid)))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended meanwhile, or belongs to another user
    read, written = (sum(part) for part in zip(*sums, strict=True))
    return read, written


def _process_bytes(pid: str) -> tuple[int, int]:
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["read_bytes"]), int(fields["write_bytes"])


def disk_bytes(folder: Path) -> tuple[int, int] | None:
    """Return (read, written) bytes of the block device that holds an existing ``folder``, by all processes.

    None where the kernel has no such figures: a network or overlay file system, or a container that hides them.

    Source:
        Documentation/block/stat.rst of Linux, fields "read sectors" and "write sectors".
    """
    device = folder.stat().st_dev
    path = _BLOCK_DEVICES / f"{os.major(device)}:{os.minor(device)}" / "stat"
    if not path.is_file():
        return None
    fields = path.read_text().split()
    return int(fields[2]) * _SECTOR, int(fields[6]) * _SECTOR


def rss_bytes() -> int:
    """Return the resident set of this process in bytes, file maps included."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


class _PeakWatch:
    """Samples the resident set; portable, and needs no right to reset the kernel's own mark."""

    def __init__(self, period_s: float = 0.02) -> None:
        self.peak = rss_bytes()
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="graphsys-peak-rss", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self.peak = max(self.peak, rss_bytes())

    def close(self) -> int:
        self._stop.set()
        self._thread.join()
        self.peak = max(self.peak, rss_bytes())
        return self.peak


@dataclass(slots=True, kw_only=True)
class StageReport:
    """Cost of one stage; filled while the stage runs."""

    name: str
    seconds: float = 0.0
    device_bytes_read: int = 0  # from the kernel's counters, page-cache hits excluded
    device_bytes_written: int = 0
    useful_bytes: int = 0  # bytes the stage needed: feature rows, edges, hops
    peak_rss_bytes: int = 0
    skipped: bool = False  # True when an earlier run had finished it
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, part: "StageReport") -> None:
        """Add what another part of the stage cost; numbers among the details add up."""
        self.seconds += part.seconds
        self.device_bytes_read += part.device_bytes_read
        self.device_bytes_written += part.device_bytes_written
        self.useful_bytes += part.useful_bytes
        self.peak_rss_bytes = max(self.peak_rss_bytes, part.peak_rss_bytes)
        self.skipped = self.skipped and part.skipped
        for name, number in part.details.items():
            self.details[name] = self.details.get(name, 0) + number

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values."""
        return asdict(self)


@contextmanager
def measure(name: str) -> Iterator[StageReport]:
    """Measure the block as stage ``name``; the report is complete when the block ends, also by an error."""
    report = StageReport(name=name)
    watch = _PeakWatch()
    read_before, written_before = device_bytes()
    started = time.perf_counter()
    try:
        yield report
    finally:
        report.seconds = time.perf_counter() - started
        read_after, written_after = device_bytes()
        report.device_bytes_read = read_after - read_before
        report.device_bytes_written = written_after - written_before
        report.peak_rss_bytes = watch.close()
