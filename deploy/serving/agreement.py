"""Which table several servers have agreed on: a small file that all of them see.

A server that is told to activate a table says so in the file; the others look there now and then and follow, and one
that starts later begins with it. What is agreed on survives all of them.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from graphsys.core.errors import ArtefactError, GraphsysError
from graphsys.deploy.serving.looking import Looking
from graphsys.deploy.serving.problems import Problem
from graphsys.deploy.serving.registry import TableRegistry
from graphsys.storage.files import write_bytes
from graphsys.storage.manifest import open_sealed_json, sealed_json

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What the file says."""

    version: str
    path: Path  # of the table, as all servers see it


def read_choice(file: Path) -> Choice | None:
    """Return what was agreed on; None before the first time.

    Raises:
        CorruptError: The file is damaged.
        DiskError: It cannot be read.
    """
    if not file.exists():
        return None
    value = open_sealed_json(file)
    return Choice(version=value["version"], path=Path(value["path"]))


def write_choice(file: Path, choice: Choice) -> None:
    """Replace the file, whole or not at all."""
    write_bytes(file, sealed_json({"version": choice.version, "path": str(choice.path)}))


class Agreement:
    """Keeps one server's active table and the file the same; the last one to change wins everywhere.

    Args:
        every_s: Seconds between two looks.
    """

    def __init__(self, registry: TableRegistry, file: Path, *, every_s: float) -> None:
        self._registry = registry
        self._file = file
        self._agreed: str | None = None  # version that this server and the file had in common
        self._refused: Choice | None = None  # not tried again until the file says something else
        self._looking = Looking(self.look, every_s=every_s, name="graphsys-agreement")

    def begin(self, first: str | None) -> None:
        """Activate what was agreed on, or else the known version ``first``; look again and again from now on.

        Raises:
            GraphsysError: Neither can be loaded.
        """
        self.look()
        if self._registry.active is None and first is not None:
            self._registry.activate(first)
            self.look()
        self._looking.start()

    def stop(self) -> None:
        """Look no more."""
        self._looking.stop()

    def look(self) -> None:
        """Tell the others what became active here, or follow what became active there."""
        try:
            if self._registry.active != self._agreed:
                self._tell()
            else:
                self._follow(read_choice(self._file))
        except GraphsysError as error:
            _LOG.error("the servers do not agree on a table: %s", error)

    def _tell(self) -> None:
        active = next((item for item in self._registry.listing() if item.version == self._registry.active), None)
        if active is not None:
            write_choice(self._file, Choice(version=active.version, path=active.path.absolute()))
            self._agreed = active.version

    def _follow(self, choice: Choice | None) -> None:
        if choice is None or choice == self._refused or choice.version == self._agreed:
            return
        try:
            found = self._registry.add(choice.path)
            if found != choice.version:
                raise ArtefactError(f"{choice.path} holds version '{found}', no longer '{choice.version}'")
            self._registry.activate(choice.version)
        except Problem:
            return  # another activation is under way: the next look tries again
        except GraphsysError:
            self._refused = choice
            raise
        self._agreed, self._refused = choice.version, None
