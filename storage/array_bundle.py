"""Arrays that came together, by name, and the record of which of them were used."""

from collections.abc import Iterable, Mapping

from graphsys.core.errors import InputError
from graphsys.storage.array_files import ArrayFile
from graphsys.storage.checks import printable


class ArrayBundle:
    """Hands out arrays by name and remembers what nobody asked for."""

    def __init__(self, arrays: Mapping[str, ArrayFile], description: str) -> None:
        self.description = description
        self._arrays = dict(arrays)
        self._used: set[str] = set()
        self._notes: list[str] = []

    def get(self, name: str) -> ArrayFile | None:
        """Return the array ``name``, noted as used, or None."""
        self._used.add(name)
        return self._arrays.get(name)

    def first(self, names: Iterable[str]) -> ArrayFile | None:
        """Return the first array that is there under one of ``names``, noted as used, or None."""
        return next((self.get(name) for name in names if name in self._arrays), None)

    def need(self, name: str, role: str) -> ArrayFile:
        """Return the array ``name``.

        Raises:
            InputError: It is missing; the message lists what is there.
        """
        array = self.get(name)
        if array is None:
            raise InputError(f"{self.description} has no array '{name}' for {role}; it has {self.listing()}")
        return array

    def choose(self, named: str | None, names: Iterable[str], role: str) -> ArrayFile | None:
        """Return the array that the user named, else the first of ``names``, else None."""
        return self.first(names) if named is None else self.need(named, role)

    def listing(self) -> str:
        """Return the arrays with their shapes, for messages."""
        listed = ", ".join(f"{name} {list(array.shape)}" for name, array in self._arrays.items())
        return printable(listed) or "no arrays"

    def note(self, text: str) -> None:
        """Remember a part of an array that is not used."""
        self._notes.append(text)

    def ignored(self) -> tuple[str, ...]:
        """Return the notes, then every array that nobody asked for."""
        return (*self._notes, *(f"{name} (not used)" for name in self._arrays if name not in self._used))
