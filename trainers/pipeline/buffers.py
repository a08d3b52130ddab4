"""Where a stage's rows lie: in memory while the budget lasts, then in files that are mapped."""

import mmap
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graphsys.storage.disk_speed import existing_folder
from graphsys.storage.files import disk_errors

_MEMORY_SHARE = 0.5  # of the memory budget; the graph, one chunk's transients and messages on their way need the rest


class Buffers:
    """Hands out rows of zeros.

    Mapped files have no names, so that a killed process leaves none behind. The system may write their pages back and
    drop them when memory is short.

    Args:
        folder: Where files go, or to its nearest parent that exists.
        memory: The memory budget, in bytes.
        device: Where rows lie; a GPU's own memory is not part of the budget.
    """

    def __init__(self, folder: Path, memory: int, device: torch.device) -> None:
        self._folder = existing_folder(folder)
        self._left = int(memory * _MEMORY_SHARE)
        self._device = device
        self.mapped_nbytes = 0  # bytes of files handed out

    def allocate(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return float32 zeros; ``name`` says what they are for in messages.

        Raises:
            DiskError: The disk has no room for them.
        """
        if self._device.type != "cpu":
            return torch.zeros(shape, device=self._device)
        nbytes = 4 * int(np.prod(shape, dtype=np.int64))
        if nbytes <= self._left or nbytes == 0:
            self._left -= nbytes
            return torch.zeros(shape)
        self.mapped_nbytes += nbytes
        return torch.from_numpy(self._mapped(name, nbytes).reshape(shape))

    def _mapped(self, name: str, nbytes: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        with disk_errors("write", self._folder / name), tempfile.TemporaryFile(dir=self._folder) as file:
            os.posix_fallocate(file.fileno(), 0, nbytes)  # or a full disk would kill the process later
            return np.frombuffer(mmap.mmap(file.fileno(), nbytes), np.float32)
