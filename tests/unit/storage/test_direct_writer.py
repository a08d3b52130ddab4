"""Files written past the page cache, front to back."""

import errno
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphsys.core.errors import DiskError
from graphsys.storage.direct_writer import DirectWriter


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.sampled_from([0, 1, 100, 4095, 4096, 4097, 300_000, 512 << 10, 1_500_000]), max_size=8))
def test_a_file_holds_the_bytes_in_order(sizes: list[int]) -> None:
    pieces = [np.random.default_rng(place).integers(0, 256, size, np.uint8) for place, size in enumerate(sizes)]
    with TemporaryDirectory() as folder:
        writer = DirectWriter(Path(folder) / "new/file")
        for piece in pieces:
            writer.write(piece if piece.nbytes % 2 else piece.tobytes())
        assert writer.nbytes == sum(sizes)
        writer.close()
        assert (Path(folder) / "new/file").read_bytes() == b"".join(piece.tobytes() for piece in pieces)


def write_and_close(writer: DirectWriter, nbytes: int) -> None:
    writer.write(bytes(nbytes))
    writer.close()


@pytest.mark.parametrize("nbytes", [1000, 3 << 20])
def test_a_failing_disk_is_told_at_the_latest_when_the_file_is_closed(
    nbytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = DirectWriter(tmp_path / "file")
    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(DiskError, match=r"cannot write .*file: the disk is full"):
        write_and_close(writer, nbytes)
    writer.abort()
