"""The tables a server knows, which one is active, and who still reads an old one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from graphsys.core.errors import GraphsysError
from graphsys.core.progress import SILENT, Progress
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.served_table import ServedTable, open_served, provenance
from graphsys.deploy.serving.settings import ServeSettings
from graphsys.storage.embeddings import EmbeddingTable

State = Literal["known", "loading", "active", "retiring", "refused"]
Opener = Callable[[Path, ServeSettings, Progress], ServedTable]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableListing:
    """What is told about one known table."""

    version: str
    path: Path
    state: State
    dim: int
    num_rows: int
    node_type: str
    dtype: str
    provenance: dict[str, Any]
    error: str | None  # why it was refused when it was last loaded


@dataclass(slots=True)
class _Entry:
    path: Path
    facts: dict[str, Any]  # of the manifest; see TableListing
    state: State = "known"
    error: str | None = None
    loaded: ServedTable | None = None
    leases: int = field(default=0)


class TableRegistry:
    """Knows tables by version; one is active, and is exchanged between two requests, never during one.

    A request takes a lease, and reads that one table until it ends, whatever becomes active meanwhile. A table that is
    no longer active is closed with its last lease. All methods may be called from any thread.
    """

    def __init__(self, settings: ServeSettings, *, opener: Opener = open_served) -> None:
        self._settings = settings
        self._opener = opener
        self._entries: dict[str, _Entry] = {}
        self._active: str | None = None
        self._lock = threading.Lock()  # held for a few assignments only
        self._activating = threading.Lock()  # held while a table is loaded

    @property
    def active(self) -> str | None:
        """Version of the active table; None before the first."""
        return self._active

    def add(self, path: Path) -> str:
        """Make the table at ``path`` known without loading it; return its version.

        Raises:
            ArtefactError: There is no embedding table, or a damaged one.
        """
        table = EmbeddingTable.open(path)
        with self._lock:
            entry = self._entries.get(table.version)
            if entry is None:
                self._entries[table.version] = _Entry(path, _facts(table))
            elif entry.loaded is None:
                entry.path = path
        return table.version

    def activate(self, version: str, progress: Progress = SILENT) -> ServedTable:
        """Load a known table and make it the active one; on failure the active one stays.

        Raises:
            Problem: 404, the version is not known; 409, another activation is under way.
            CorruptError: A byte of the table differs from what was written.
        """
        if not self._activating.acquire(blocking=False):
            raise Problem(409, "another table is being activated; ask again when it is done")
        try:
            entry = self._known(version)
            # One that is loaded still may be closed with its last lease at any moment, until it is active again.
            if (loaded := self._swap(version, None)) is not None:
                return loaded
            fresh = self._load(entry, version, progress)
            self._swap(version, fresh)
            return fresh
        finally:
            self._activating.release()

    def _known(self, version: str) -> _Entry:
        with self._lock:
            entry = self._entries.get(version)
        if entry is None:
            raise Problem(404, f"no table has version '{version}'; GET /v1/tables lists those that are known")
        return entry

    def _load(self, entry: _Entry, version: str, progress: Progress) -> ServedTable:
        entry.state = "loading"
        try:
            loaded = self._opener(entry.path, self._settings, progress)
            if loaded.version != version:
                found = loaded.version
                loaded.close()
                raise Problem(409, f"{entry.path} holds version '{found}' by now, no longer '{version}'")
        except (GraphsysError, Problem) as error:
            entry.state, entry.error = "refused", str(error)
            raise
        except BaseException:
            entry.state = "known"
            raise
        return loaded

    def _swap(self, version: str, fresh: ServedTable | None) -> ServedTable | None:
        """Make ``fresh`` active, or the table that is loaded still where that is None; return which, None for none."""
        with self._lock:
            before = self._active
            entry = self._entries[version]
            loaded = entry.loaded if fresh is None else fresh
            if loaded is None:
                return None
            entry.loaded, entry.state, entry.error = loaded, "active", None
            entry.facts["provenance"] = dict(loaded.provenance)  # which names index and network too
            self._active = version
            old = self._entries[before] if before is not None and before != version else None
            if old is not None:
                old.state = "retiring"
            closing = self._take_if_unused(old)
        if closing is not None:
            closing.close()
        return loaded

    @contextmanager
    def lease(self, version: str | None = None) -> Iterator[ServedTable]:
        """Yield a loaded table that stays open until the block ends.

        Args:
            version: None takes the active one.

        Raises:
            Problem: 503, no table is active yet; 404, the version is not known or not loaded.
        """
        with self._lock:
            entry, table = self._loaded(version)
            entry.leases += 1
        try:
            yield table
        finally:
            with self._lock:
                entry.leases -= 1
                closing = self._take_if_unused(entry)
            if closing is not None:
                closing.close()

    def _loaded(self, version: str | None) -> tuple[_Entry, ServedTable]:
        wanted = self._active if version is None else version
        if wanted is None:
            raise Problem(503, "no table is active yet; ask again in a moment", headers={"Retry-After": "1"})
        entry = self._entries.get(wanted)
        if entry is None or entry.loaded is None:
            raise Problem(
                404,
                f"version '{wanted}' is not loaded; '{self._active}' is the active one. "
                f"POST /v1/tables/{{version}}/activate loads a known one",
            )
        return entry, entry.loaded

    @staticmethod
    def _take_if_unused(entry: _Entry | None) -> ServedTable | None:
        """Take a retired table without leases out of its entry, for closing outside the lock."""
        if entry is None or entry.state != "retiring" or entry.leases:
            return None
        table, entry.loaded, entry.state = entry.loaded, None, "known"
        return table

    def listing(self) -> list[TableListing]:
        """Return all known tables, in the order they became known."""
        with self._lock:
            return [
                TableListing(version=version, path=entry.path, state=entry.state, error=entry.error, **entry.facts)
                for version, entry in self._entries.items()
            ]

    def close(self) -> None:
        """Close the active table once its last lease ends; nothing is active from now on."""
        with self._lock:
            entry = None if self._active is None else self._entries[self._active]
            self._active = None
            if entry is not None:
                entry.state = "retiring"
            closing = self._take_if_unused(entry)
        if closing is not None:
            closing.close()


def _facts(table: EmbeddingTable) -> dict[str, Any]:
    return {
        "dim": table.dim,
        "num_rows": table.num_rows,
        "node_type": table.node_type,
        "dtype": table.dtype.name,
        "provenance": provenance(table),
    }
