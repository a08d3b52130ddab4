"""A folder in which new tables appear while the server runs."""

import logging
from pathlib import Path

from graphsys.core.errors import GraphsysError
from graphsys.deploy.serving.looking import Looking
from graphsys.deploy.serving.map_folder import MAP_SUFFIX
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.registry import TableRegistry
from graphsys.storage.manifest import MANIFEST_NAME

_LOG = logging.getLogger(__name__)

Signature = tuple[tuple[str, int, int, int], ...]  # name, inode, bytes, time of change, of every file


class FolderWatch:
    """Looks into a folder now and then; every table that is new there becomes known.

    A table that is written by graphsys appears there whole, by a rename. One that is copied in file by file is taken
    once it is whole: until then a look finds it damaged, and the next change makes it looked at again.

    Args:
        folder: Its sub-folders are tables; names that start with a dot are still being written.
        every_s: Seconds between two looks.
        activate: Make the newest table active as soon as it appears.
    """

    def __init__(self, registry: TableRegistry, folder: Path, *, every_s: float, activate: bool) -> None:
        self._registry = registry
        self._folder = folder
        self._activate = activate
        self._seen: dict[Path, Signature] = {}
        self._newest: str | None = None  # to become active
        self._looking = Looking(self.look, every_s=every_s, name="graphsys-watch")

    def start(self) -> None:
        """Look again and again from now on."""
        self._looking.start()

    def stop(self) -> None:
        """Look no more."""
        self._looking.stop()

    def find(self) -> list[str]:
        """Make every new table known; return their versions, the oldest first."""
        found: list[tuple[int, str]] = []
        for path in self._candidates():
            signature = _signature(path)
            if signature is None or self._seen.get(path) == signature:
                continue
            self._seen[path] = signature
            try:
                newest = max((changed for _, _, _, changed in signature), default=0)
                found.append((newest, self._registry.add(path)))
            except GraphsysError as error:
                _LOG.warning("not taken: %s", error)
        return [version for _, version in sorted(found)]

    def look(self) -> None:
        """Make new tables known, and the newest one active if so wished; a refused one leaves the active one."""
        arrived = self.find()
        if arrived and self._activate:
            self._newest = arrived[-1]
        if self._newest is None or self._newest == self._registry.active:
            self._newest = None
            return
        try:
            self._registry.activate(self._newest)
        except Problem as problem:
            if problem.status != 409:
                _LOG.warning("not activated: %s", problem)
                self._newest = None
            return  # another activation is under way: the next look tries again
        except GraphsysError as error:
            _LOG.warning("not activated: %s", error)
        else:
            _LOG.warning("%s is active, it appeared in %s", self._newest, self._folder)
        self._newest = None

    def _candidates(self) -> list[Path]:
        try:
            return sorted(
                path
                for path in self._folder.iterdir()
                if not path.name.startswith(".")
                and not path.name.endswith(MAP_SUFFIX)  # lies beside its table, and is none
                and _may_be_table(path)
            )
        except OSError as error:
            _LOG.warning("cannot look into %s: %s", self._folder, error.strerror)
            return []


def _may_be_table(path: Path) -> bool:
    try:
        return (path / MANIFEST_NAME).is_file()
    except OSError:
        return True  # who opens it is told why it cannot be read; the others are looked at all the same


def _signature(folder: Path) -> Signature | None:
    """Return what changes when any file below ``folder`` does; None while files come and go."""
    try:
        stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in sorted(folder.rglob("*"))]
    except OSError:
        return None
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns) for name, stat in stats)
