"""Arrays in ``.npy`` and ``.npz`` files, read front to back without ever holding one whole.

Pickles are never loaded: an array of Python objects is refused by its header.
"""

import errno
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from graphsys.core.errors import InputError
from graphsys.core.types import Array
from graphsys.core.units import format_bytes
from graphsys.storage.checks import short_reason
from graphsys.storage.files import disk_errors

_STEP = 1 << 20
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError,
    SyntaxError, tokenize.TokenError, KeyError, TypeError, OverflowError,
)  # fmt: skip
# A compressed array in Fortran order cannot be streamed by rows; a small one is simply read whole.
_WHOLE_BYTES = 16 << 20


@contextmanager
def array_errors(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises into one sentence about ``path``.

    Raises:
        InputError: The file is damaged or of another kind.
        DiskError: The system refused.
    """
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        # A damaged archive sends the reader to impossible places, which the system calls an invalid argument.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            with disk_errors("read", path):
                raise
        raise InputError(
            f"{path} cannot be read as {path.suffix or 'an array file'}: {short_reason(error)}; it is damaged, "
            f"truncated or of another kind, so make it again"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrayFile:
    """One array on disk; only its header was read."""

    name: str
    path: Path
    member: str | None  # of a zip archive; None: the file itself
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int  # byte at which the elements begin, in the file or member
    fortran: bool = False

    @property
    def num_rows(self) -> int:
        """Length of the first axis; a scalar has one row."""
        return self.shape[0] if self.shape else 1

    @property
    def row_nbytes(self) -> int:
        """Bytes of one row."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    @property
    def end(self) -> int:
        """Byte behind the last element."""
        return self.start + self.num_rows * self.row_nbytes

    @property
    def shown(self) -> str:
        """How messages name the array."""
        return f"{self.path.name}: {self.name}" if self.member is not None else self.path.name

    def part(self, index: int) -> "ArrayFile":
        """Return row ``index`` of a C-ordered array as an array of its own."""
        return replace(self, shape=self.shape[1:], start=self.start + index * self.row_nbytes)

    def transposed(self) -> "ArrayFile":
        """Return the transposed view of a two-dimensional array."""
        return replace(self, shape=self.shape[::-1], fortran=not self.fortran)

    def read(self) -> Array:
        """Return the whole array."""
        with self.cursor() as rows:
            return rows.take(self.num_rows).reshape(self.shape)

    def cursor(self) -> "Cursor":
        """Open the array at its first row."""
        return Cursor(self)


class Cursor:
    """Takes rows of an array, front to back."""

    def __init__(self, array: ArrayFile) -> None:
        self._array = array
        self._whole: Array | None = None
        self._place = 0
        with array_errors(array.path):
            self._archive = zipfile.ZipFile(array.path) if array.member is not None else None
            if self._archive is not None and array.member is not None:
                self._file: IO[bytes] = self._archive.open(array.member)
            else:
                self._file = array.path.open("rb", buffering=0)
            self._skip(array.start)
        if array.fortran and len(array.shape) > 1:
            self._whole = self._read_fortran()

    def _skip(self, nbytes: int) -> None:
        if self._archive is None:
            self._file.seek(nbytes)
            return
        while nbytes > 0:  # read, not sought, so that the archive's own checksum stays in force
            step = len(self._file.read(min(nbytes, _STEP)))
            if step == 0:
                raise EOFError("it ends before its header says")
            nbytes -= step

    def _read_fortran(self) -> Array:
        array = self._array
        if self._archive is None:
            with array_errors(array.path):
                return np.memmap(array.path, array.dtype, "r", array.start, array.shape, "F")
        if array.num_rows * array.row_nbytes > _WHOLE_BYTES:
            raise InputError(
                f"{array.shown} is in Fortran order and {format_bytes(array.num_rows * array.row_nbytes)} large, so it "
                f"cannot be read by rows; save np.ascontiguousarray of it"
            )
        flat = self._elements(int(np.prod(array.shape, dtype=np.int64)))
        return flat.reshape(array.shape, order="F")

    def take(self, num_rows: int) -> Array:
        """Return the next ``num_rows`` rows [num_rows, ...] in native byte order.

        Raises:
            InputError: The file ends before.
        """
        array = self._array
        if self._whole is not None:
            rows = np.ascontiguousarray(self._whole[self._place : self._place + num_rows])
            self._place += num_rows
            return rows.astype(array.dtype.newbyteorder("="), copy=False)
        row_shape = array.shape[1:]
        return self._elements(num_rows * int(np.prod(row_shape, dtype=np.int64))).reshape(num_rows, *row_shape)

    def _elements(self, count: int) -> Array:
        out = np.empty(count, self._array.dtype)
        view = out.view(np.uint8).data
        done = 0
        with array_errors(self._array.path):
            while done < out.nbytes:
                piece = self._file.read(min(out.nbytes - done, _STEP))
                if not piece:
                    raise EOFError(f"array '{self._array.name}' ends {out.nbytes - done} bytes early")
                view[done : done + len(piece)] = piece
                done += len(piece)
        return out.astype(out.dtype.newbyteorder("="), copy=False)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        if self._archive is not None:
            self._archive.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_npy(path: Path) -> ArrayFile:
    """Return the array of a ``.npy`` file.

    Raises:
        InputError: It is none, is truncated, or holds Python objects.
    """
    with array_errors(path), path.open("rb") as file:
        array = _header(file, path, path.stem, None)
        found = path.stat().st_size
    if found < array.end:
        raise InputError(f"{path} is truncated: {found} bytes found, {array.end} expected; make it again")
    return array


def open_npz(path: Path) -> dict[str, ArrayFile]:
    """Return the arrays of a ``.npz`` file by name.

    Raises:
        InputError: It is none, or one of its arrays holds Python objects.
    """
    with array_errors(path), zipfile.ZipFile(path) as archive:
        arrays = {}
        for info in archive.infolist():
            with archive.open(info) as file:
                name = info.filename.removesuffix(".npy")
                arrays[name] = _header(file, path, name, info.filename)
            if info.file_size < arrays[name].end:
                raise EOFError(f"array '{name}' has {info.file_size} bytes, its header says {arrays[name].end}")
        return arrays


def _header(file: IO[bytes], path: Path, name: str, member: str | None) -> ArrayFile:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise InputError(
            f"{path}: array '{name}' holds Python objects, which are never loaded; save it with a numeric dtype"
        )
    return ArrayFile(name=name, path=path, member=member, dtype=dtype, shape=shape, start=file.tell(), fortran=fortran)


def numeric(array: ArrayFile, kinds: str, expected: str) -> ArrayFile:
    """Return ``array``, once its dtype kind is among ``kinds``.

    Raises:
        InputError: It is not.
    """
    if array.dtype.kind not in kinds:
        raise InputError(f"{array.shown} is of type {array.dtype}; expected {expected}")
    return array
