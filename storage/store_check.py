"""Makes sure that a store's arrays hold what was written before they are used, once per version of their files."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphsys.core.errors import CorruptError
from graphsys.core.metrics import StageReport, measure
from graphsys.core.progress import SILENT, Progress, task
from graphsys.storage.files import disk_errors, write_bytes
from graphsys.storage.manifest import open_sealed_json, sealed_json
from graphsys.storage.sequential import FULL_SPEED_BYTES
from graphsys.storage.store import Store

_Mark = dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreCheck:
    """Arrays of a store that are as they were written, and what it cost to find out."""

    store: str  # fingerprint
    marks: dict[str, _Mark]  # array -> what names the version of its file; those known before included
    report: StageReport

    def remember(self, record: Path) -> None:
        """Keep the result in the file ``record``, where :func:`check_store` finds it; its folder exists.

        Raises:
            DiskError: The system refused. A read-only folder is left without a record, and costs a check each time.
        """
        if not self.report.skipped and os.access(record.parent, os.W_OK):
            write_bytes(record, sealed_json({"store": self.store, "arrays": self.marks}))


def check_store(
    store: Store,
    names: Iterable[str],
    *,
    record: Path,
    memory: int = FULL_SPEED_BYTES,
    progress: Progress = SILENT,
) -> StoreCheck:
    """Read the arrays ``names`` from front to back and compare all their checksums.

    Arrays that ``record`` remembers are not read again while their files keep size, times, inode and device: neither
    a program that writes to a file nor one that puts another in its place leaves all of these alone.

    Args:
        record: What :meth:`StoreCheck.remember` wrote; it need not exist.
        memory: Bytes that the buffers may take.

    Raises:
        CorruptError: A chunk differs; the message names file, chunk and offset.
        ArtefactError: The store has no such array.
        DiskError: The system refused.

    Cost:
        One sequential read at the speed of the disk. A record costs one stat per array.
    """
    known = _remembered(record, store)
    # Before the reading, so that a file that changes meanwhile is read again the next time.
    marks = {name: _mark(store.array(name).path) for name in dict.fromkeys(names)}
    due = [name for name in marks if known.get(name) != marks[name]]
    report = _verify(store, due, memory, progress) if due else StageReport(name="check", skipped=True)
    return StoreCheck(store=store.fingerprint, marks={**known, **marks}, report=report)


def _verify(store: Store, names: list[str], memory: int, progress: Progress) -> StageReport:
    arrays = [store.array(name) for name in names]
    with (
        measure("check") as report,
        task(progress, "checking store", sum(array.spec.nbytes for array in arrays), "B") as work,
    ):
        for array in arrays:
            array.verify(work, memory=memory)
            report.useful_bytes += array.spec.nbytes
    report.details = {"arrays": names}
    return report


def _remembered(record: Path, store: Store) -> dict[str, _Mark]:
    if not record.is_file():
        return {}
    try:
        value: dict[str, Any] = open_sealed_json(record)
    except CorruptError:
        return {}  # it is written anew
    return value["arrays"] if value.get("store") == store.fingerprint else {}


def _mark(path: Path) -> _Mark:
    with disk_errors("read", path):
        found = os.stat(path)
    return {
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,
        "inode": found.st_ino,
        "device": found.st_dev,
    }
